"""What a reader of a report is warned of."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from app.kinds.attribute.report import Site as Told
from tests.support import internals_blocks
from tests.support.attribute_reports import site
from tests.support.making import sides
from tests.support.searching import LAYERS, MODULES, broken_search, search
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.subset import Missed
from workers.diagnosis.attribute.warnings import matched_otherwise, not_finite, warnings_of
from workers.distributions.token_values import Positions


def test_the_warnings_tell_parts_that_are_finite_nowhere_from_those_that_are_somewhere() -> None:
    done = broken_search(MODULES[2], partly=(LAYERS[1],), fine=(LAYERS[0],))
    nowhere, partly = not_finite(done)
    assert nowhere.startswith("1 part made no finite logits at any position (layers.2.mlp.up_proj), and so no nats")
    assert partly == (
        "1 part made logits that are not finite at some positions (layers.1): its nats are over the other positions."
    )
    assert not_finite(search(*LAYERS)) == []
    many = not_finite(broken_search(*LAYERS, *MODULES))
    assert len(many) == 1
    assert many[0].startswith("8 parts made no finite logits at any position (layers.0.mlp.up_proj, ")
    assert "layers.3.mlp.up_proj and 4 more)" in many[0]


def test_a_part_without_an_interval_since_it_was_dropped_early_is_warned_of() -> None:
    window = np.repeat(np.arange(12), 4)
    where = Positions(window, window, window, window, window)
    found = SimpleNamespace(
        sides=sides(),
        warnings=[],
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
    assert told.startswith("1 part was measured on the first 12 tokens of 3 documents, in 3 windows: fewer")
    assert "(`shown`) is not told" in told


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([(0, 0, 1.0), (2, 1, 0.9), (3, 3, 1.0)], "layer 1 of the candidate"),
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
        warnings=[],
        corpus=SimpleNamespace(repeated=0),
        not_swapped="the models have 30 and 28 layers",
        internals=internals_blocks.dense(alignment=block),
        search=None,
        subset=None,
        looking=None,
    )
    (told,) = warnings_of(cast("Found", found), (), 0)
    assert "dropped layer 3, added layer 4, what both models have left logits that are not finite" in told


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
            warnings=[],
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
    assert changed.startswith("Swapping layers.0 by itself changed something, which must not be")
    # the report has no number for it, as of a part that was not looked into
    (broken,) = told(float("inf"), None)
    assert broken.startswith("Swapping layers.0 by itself left logits that are not finite at some position")
