"""What a reader of a report is warned of."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.kinds.attribute.report import Site as Told
from tests.support import internals_blocks
from tests.support.attribute_reports import site
from tests.support.making import sides
from tests.support.searching import LAYERS, MODULES, broken_search, search
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.subset import Missed
from workers.diagnosis.attribute.warnings import (
    fallen_out,
    matched_otherwise,
    not_finite,
    not_reached,
    too_few,
    too_few_at_first,
    warnings_of,
)
from workers.distributions.token_values import Positions
from workers.measuring.means import mean_of


def test_parts_that_are_finite_nowhere_are_told_from_those_that_are_somewhere() -> None:
    done = broken_search(MODULES[2], partly=(LAYERS[1],), fine=(LAYERS[0],))
    nowhere, partly = not_finite(done)
    assert "at any position: layers.2.mlp.up_proj." in nowhere
    assert "at some positions: layers.1." in partly
    assert not_finite(search(*LAYERS)) == []
    (many,) = not_finite(broken_search(*LAYERS, *MODULES))
    assert "layers.3.mlp.up_proj and 4 more." in many


def test_a_part_without_an_interval_since_it_was_dropped_early_is_warned_of() -> None:
    window = np.repeat(np.arange(12), 4)
    where = Positions(window, window, window, window, window)
    found = SimpleNamespace(
        sides=sides(),
        allowed=[],
        also=[],
        corpus=SimpleNamespace(repeated=0),
        not_swapped="",
        internals=None,
        search=search(*LAYERS),
        looking=None,
        subset=SimpleNamespace(where=where, windows=tuple(range(12)), missed=Missed()),
    )
    full = Told.model_validate(site("layers.0", 0.2, tokens=48))
    dropped = Told.model_validate(site("layers.1", 0.3, tokens=12, ci=None, shown=None))
    assert warnings_of(cast("Found", found), (full,), 0) == []
    (told,) = warnings_of(cast("Found", found), (full, dropped), 0)
    assert "on the first 12 tokens of 3 documents, in 3 windows, or fewer: 1 part: fewer" in told


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([(0, 0, 1.0), (2, 1, 0.9), (3, 3, 1.0)], "The candidate's layer 1 "),
        ([(0, 0, 1.0), (2, 1, 0.2), (3, 3, 1.0)], ""),
        ([(0, 0, 1.0), (1, 1, 0.9)], ""),
    ],
)
def test_layers_that_are_matched_otherwise_than_they_were_swapped_are_told(
    pairs: list[tuple[int, int, float]], words: str
) -> None:
    block = internals_blocks.alignment() | {
        "pairs": [
            {"reference": ours, "candidate": theirs, "similarity": 0.9, "stability": stability}
            for ours, theirs, stability in pairs
        ]
    }
    found = SimpleNamespace(not_swapped="", internals=internals_blocks.dense(alignment=block))
    told = matched_otherwise(cast("Found", found))
    assert len(told) == bool(words)
    assert words in "".join(told)
    # where nothing was swapped there is nothing to warn of
    found.not_swapped = "two depths"
    assert matched_otherwise(cast("Found", found)) == []


def test_what_has_no_nats_since_logits_are_not_finite_is_warned_of() -> None:
    none = {"mean": None, "ci": None}
    block = internals_blocks.alignment() | {"matched": none}
    block["gaps"] = [gap | {"nats": none} for gap in block["gaps"]]
    found = SimpleNamespace(
        sides=sides(),
        allowed=[],
        also=[],
        corpus=SimpleNamespace(repeated=0),
        not_swapped="the models have 30 and 28 layers",
        internals=internals_blocks.dense(alignment=block),
        search=None,
        subset=None,
        looking=None,
    )
    (told,) = warnings_of(cast("Found", found), (), 0)
    assert told.endswith(": dropped layer 3, added layer 4, what both models have.")


def test_layers_that_match_otherwise_on_too_little_text_to_resample_are_told() -> None:
    pair = {"reference": 2, "candidate": 1, "similarity": 0.9}
    for resamplings, stability, told in ((0, None, 1), (200, 0.0, 0)):
        pairs = [pair | {"stability": stability}]
        block = internals_blocks.alignment() | {"pairs": pairs, "resamplings": resamplings}
        found = SimpleNamespace(not_swapped="", internals=internals_blocks.dense(alignment=block))
        assert len(matched_otherwise(cast("Found", found))) == told


def test_a_control_that_is_not_zero_or_no_number_is_told() -> None:
    def told(control: float, in_report: float | None, *making: str) -> list[str]:
        found = SimpleNamespace(
            sides=sides(*making),
            allowed=[],
            also=[],
            corpus=SimpleNamespace(repeated=0),
            not_swapped="",
            internals=None,
            search=None,
            subset=None,
            looking=SimpleNamespace(looks={"layers.0": SimpleNamespace(control=control)}),
        )
        site_told = Told.model_validate(site("layers.0", 0.2, control=in_report))
        return warnings_of(cast("Found", found), (site_told,), 0)

    assert told(0.0, 0.0) == []
    assert told(0.0, 0.0, "too little text") == ["Of making the candidate by quantize.gptq: too little text"]
    (changed,) = told(1e-9, 1e-9)
    assert changed.startswith("Swapping layers.0 by itself changed something")
    # the report has no number for it, as of a part that was not looked into
    (broken,) = told(float("inf"), None)
    assert broken.startswith("Swapping layers.0 by itself left logits that are not finite")


@pytest.mark.parametrize(
    ("windows", "documents", "words"),
    [
        (6, 6, None),
        (8, 5, "500 tokens of 5 documents, fewer than six: their intervals are clustered by windows"),
        (2, 2, "500 tokens of 2 documents, in 2 windows: fewer than six of either"),
        (1, 1, "500 tokens of 1 document, in 1 window: fewer than six of either"),
    ],
)
def test_few_documents_and_few_windows_are_warned_of(windows: int, documents: int, words: str | None) -> None:
    found = too_few(500, windows, documents)
    assert len(found) == (words is not None)
    assert (words or "") in "".join(found)


def test_documents_that_fell_out_are_counted_with_why_and_what_to_give() -> None:
    assert fallen_out(Missed()) == []
    (short,) = fallen_out(Missed(documents=6, length=42, short=2))
    assert "2 of 6 documents: 2 have no window of 42 tokens" in short
    assert "fewer `tokens`" in short
    (both,) = fallen_out(Missed(documents=8, length=32, short=1, over=4))
    assert "5 of 8 documents: 1 have" in both
    assert both.endswith("4 are beyond `tokens` (give 192).")
    assert "fewer `tokens`" not in both


def positions(documents: int, windows: int, tokens: int = 4) -> Positions:
    """So many documents of so many windows of so many scored tokens."""
    window = np.repeat(np.arange(documents * windows), tokens)
    return Positions(window // windows, window, window, window, window)


def test_parts_that_were_dropped_on_too_little_text_are_counted() -> None:
    where = positions(8, 2)
    assert too_few_at_first([64, 64], where) == []
    (one,) = too_few_at_first([64, 12], where)
    assert "12 tokens of 2 documents, in 3 windows, or fewer: 1 part: fewer than six of either" in one
    (three,) = too_few_at_first([16, 64, 12, 16], where)
    assert "16 tokens of 2 documents, in 4 windows, or fewer: 3 parts" in three
    without, narrow = too_few_at_first([32, 64, 12], where)
    assert "12 tokens" in without and "no interval" in without
    assert "32 tokens of 4 documents, in 8 windows, or fewer: 1 part: fewer than six documents" in narrow
    # if the whole has too little itself, all parts are warned of elsewhere
    assert too_few_at_first([12], positions(2, 2)) == []
    assert too_few_at_first([32, 72], positions(3, 6)) == []
    assert len(too_few_at_first([12, 72], positions(3, 6))) == 1


def test_they_are_those_that_have_no_interval() -> None:
    where = positions(8, 2)
    for tokens in range(4, 64, 4):
        kl = np.linspace(0.1, 0.2, tokens)
        ci = mean_of(kl, where.select(np.arange(tokens)), seed=0).ci
        told = too_few_at_first([tokens], where)
        assert any("no interval" in one for one in told) is (ci is None)


FIVE = [Site(f"layers.{layer}", "layer", layer, ()) for layer in range(5)]
UP, DOWN = ([Site(f"layers.{layer}.mlp.{name}", "module", layer, ()) for layer in range(5)] for name in ("up", "down"))
HEAD = Site("lm_head", "head", None, ())


def left_out(*tried: Site) -> list[str]:
    """Of a search that tried these parts and left out the others."""
    changed = [*FIVE, *UP, *DOWN, HEAD]
    found = {one.name: Measured(one, np.ones(3, dtype=np.float32), 1, 0) for one in tried}
    left = [one for one in changed if one not in tried]
    nothing = cast("Any", None)
    return not_reached(Search(nothing, changed, ("layer", "module"), 3.0, 2, nothing, found, left_out=left))


def test_layers_that_were_not_tried_are_named() -> None:
    (said,) = left_out(FIVE[0], FIVE[3], FIVE[4], *UP, *DOWN)
    assert said.startswith("The budget of 3 forward passes did not reach layers 1, 2 and lm_head: ")


@pytest.mark.parametrize(
    ("tried", "ends"),
    [
        ((UP[4], DOWN[4]), " 8 of 10 parts within layers; nothing in layers 0–3 was tried."),
        ((UP[1], DOWN[1], UP[3], DOWN[3], UP[0]), " 5 of 10 parts within layers; nothing in layers 2, 4 was tried."),
        (tuple(UP), " 5 of 10 parts within layers."),
        ((), " 10 of 10 parts within layers; nothing in layers 0–4 was tried."),
    ],
)
def test_parts_within_layers_that_were_left_out_are_counted(tried: tuple[Site, ...], ends: str) -> None:
    (said,) = left_out(*FIVE, HEAD, *tried)
    assert said.endswith(f"did not reach{ends}")
    assert left_out(*FIVE, *UP, *DOWN, HEAD) == []
