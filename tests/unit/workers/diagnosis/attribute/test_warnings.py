"""What a reader of a report is warned of: which parts, and how many."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from app.kinds.attribute.report import Site as Told
from app.models.checkpoint import inspect
from tests.support import internals_blocks
from tests.support.attribute_reports import site
from tests.support.making import sides
from workers.diagnosis.attribute.job import _Attribute
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
from workers.measuring.sides import Side, Sides

FIVE = [Site(f"layers.{layer}", "layer", layer, ()) for layer in range(5)]
UP, DOWN = ([Site(f"layers.{layer}.mlp.{name}", "module", layer, ()) for layer in range(5)] for name in ("up", "down"))
HEAD = Site("lm_head", "head", None, ())
CHANGED = [*FIVE, *UP, *DOWN, HEAD]


def searched(*tried, kl=(1, 1, 1)):
    """Of a search that tried these parts, all with the same nats, and left out the others."""
    found = {one.name: Measured(one, np.array(kl, dtype=np.float32), 1, 0) for one in tried}
    left = [one for one in CHANGED if one not in tried]
    return Search(None, CHANGED, ("layer", "module"), 3.0, 2, None, found, left_out=left)


def found(*making, **changes):
    nothing = {"search": None, "subset": None, "looking": None, "internals": None}
    corpus = SimpleNamespace(repeated=0)
    base = {"sides": sides(*making), "allowed": [], "also": [], "corpus": corpus, "not_swapped": ""}
    return SimpleNamespace(**(base | nothing | changes))


def test_parts_that_are_finite_nowhere_are_told_from_those_that_are_somewhere():
    done = searched(FIVE[0])
    done.found |= searched(UP[2], kl=(np.nan,) * 3).found | searched(FIVE[1], kl=(1, np.nan, 3)).found
    nowhere, partly = not_finite(done)
    assert "at any position: layers.2.mlp.up." in nowhere
    assert "at some positions: layers.1." in partly
    assert not_finite(searched(*FIVE)) == []


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([(0, 0, 1.0), (2, 1, 0.9), (3, 3, 1.0)], 1),
        ([(0, 0, 1.0), (2, 1, 0.2), (3, 3, 1.0)], 0),
        ([(0, 0, 1.0), (1, 1, 0.9)], 0),
        ([(2, 1, None)], 1),  # too little text to resample
    ],
)
def test_layers_that_are_matched_otherwise_than_they_were_swapped_are_told(pairs, told):
    rows = [dict(zip(("reference", "candidate", "stability"), pair, strict=True), similarity=0.9) for pair in pairs]
    made = internals_blocks.dense(alignment=internals_blocks.alignment() | {"pairs": rows})
    assert len(matched_otherwise(found(internals=made))) == told
    assert matched_otherwise(found(internals=made, not_swapped="two depths")) == []


def test_what_has_no_nats_since_logits_are_not_finite_is_named():
    none = {"mean": None, "ci": None}
    block = internals_blocks.alignment() | {"matched": none}
    block["gaps"] = [gap | {"nats": none} for gap in block["gaps"]]
    made = internals_blocks.dense(alignment=block)
    (told,) = warnings_of(found(internals=made, not_swapped="the models have 30 and 28 layers"), (), 0)
    assert told.endswith(": dropped layer 3, added layer 4, what both models have.")


@pytest.mark.parametrize(
    ("control", "in_report", "told"),
    [
        (0.0, 0.0, []),
        (1e-9, 1e-9, ["Swapping layers.0 by itself changed something"]),
        (np.inf, None, ["Swapping layers.0 by itself left logits that are not finite"]),
    ],
)
def test_a_control_that_is_not_zero_or_no_number_is_told(control, in_report, told):
    looking = SimpleNamespace(looks={"layers.0": SimpleNamespace(control=control)})
    part = Told.model_validate(site("layers.0", 0.2, control=in_report))
    warned = warnings_of(found("too little text", looking=looking), (part,), 0)
    assert warned[0] == "Of making the candidate by quantize.gptq: too little text"
    assert len(warned) == 1 + len(told)
    assert all(one.startswith(words) for one, words in zip(warned[1:], told, strict=True))


@pytest.mark.parametrize(("windows", "documents", "told"), [(6, 6, ""), (8, 5, "too narrow"), (2, 2, "no interval")])
def test_few_documents_and_few_windows_are_warned_of(windows, documents, told):
    warned = too_few(500, windows, documents)
    assert len(warned) == bool(told)
    assert told in "".join(warned)


def test_documents_that_fell_out_are_counted_with_why_and_what_to_give():
    assert fallen_out(Missed()) == []
    (short,) = fallen_out(Missed(documents=6, length=42, short=2))
    assert "2 of 6 documents: 2 have no window of 42 tokens" in short
    (both,) = fallen_out(Missed(documents=8, length=32, short=1, over=4))
    assert "5 of 8 documents: 1 have" in both
    assert both.endswith("4 are beyond `tokens` (give 192).")


def positions(documents, windows, tokens=4):
    """So many documents of so many windows of so many scored tokens."""
    window = np.repeat(np.arange(documents * windows), tokens)
    return Positions(window // windows, window, window, window, window)


def test_parts_that_were_dropped_on_too_little_text_are_counted():
    where = positions(8, 2)
    assert too_few_at_first([64, 64], where) == []
    (three,) = too_few_at_first([16, 64, 12, 16], where)
    assert "16 tokens of 2 documents, in 4 windows, or fewer: 3 parts" in three
    without, narrow = too_few_at_first([32, 64, 12], where)
    assert "12 tokens" in without and "no interval" in without
    assert "32 tokens of 4 documents, in 8 windows, or fewer: 1 part: fewer than six documents" in narrow
    # if the whole has too little itself, all parts are warned of elsewhere
    assert too_few_at_first([12], positions(2, 2)) == []
    assert too_few_at_first([32, 72], positions(3, 6)) == []
    assert len(too_few_at_first([12, 72], positions(3, 6))) == 1
    parts = [Told.model_validate(site(f"layers.{n}", 0.3, tokens=tokens)) for n, tokens in enumerate((64, 12))]
    subset = SimpleNamespace(where=where, windows=tuple(range(16)), missed=Missed())
    (told,) = warnings_of(found(search=searched(*CHANGED), subset=subset), tuple(parts), 0)
    assert told == too_few_at_first([64, 12], where)[0]


def test_they_are_those_that_have_no_interval():
    where = positions(8, 2)
    for tokens in range(4, 64, 4):
        ci = mean_of(np.linspace(0.1, 0.2, tokens), where.select(np.arange(tokens)), seed=0).ci
        told = too_few_at_first([tokens], where)
        assert any("no interval" in one for one in told) is (ci is None)


@pytest.mark.parametrize(
    ("tried", "ends"),
    [
        ([*FIVE, HEAD, UP[4], DOWN[4]], " 8 of 10 parts within layers; nothing in layers 0–3 was tried."),
        (
            [*FIVE, HEAD, UP[1], *UP[3:], *DOWN[1::2], UP[0]],
            " 4 of 10 parts within layers; nothing in layer 2 was tried.",
        ),
        ([*FIVE, HEAD, *UP], " 5 of 10 parts within layers."),
        ([FIVE[0], *FIVE[3:], *UP, *DOWN], " layers 1, 2 and lm_head: the worst part may be among them."),
        (CHANGED, None),
    ],
)
def test_what_the_budget_did_not_reach_is_named_or_counted(tried, ends):
    told = not_reached(searched(*tried))
    assert [one.removeprefix("The budget of 3 forward passes did not reach") for one in told] == [ends] * bool(ends)


def test_whose_weights_were_dequantized_for_the_swaps_is_told(tiny):
    info = inspect(tiny("llama"))
    packed = replace(info, scheme="w4a16", quantization={"quant_method": "compressed-tensors"})
    for reference, candidate, told in (
        (info, info, []),
        (info, packed, ["candidate"]),
        (packed, info, ["reference"]),
        (packed, packed, ["reference", "candidate"]),
    ):
        both = [Side("tiny", one, "0", one.path) for one in (reference, candidate)]
        said = _Attribute._warnings(Sides(*both, None, "bfloat16", ""), found())
        assert [one.split("'s weights are packed (w4a16)")[0] for one in said] == [f"The {name}" for name in told]
