"""What a reader of a report is warned of: which parts, and how many."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from app.kinds.attribute.blocks import Measured as Text
from app.kinds.attribute.report import Site as Told
from app.models.checkpoint import inspect
from tests.support import internals_blocks
from tests.support.attribute_reports import site
from tests.support.making import sides
from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.warnings import (
    forms,
    matched_otherwise,
    not_finite,
    not_reached,
    too_few,
    warnings_of,
)
from workers.measuring.sides import Side, Sides

FIVE = [Site(f"layers.{layer}", "layer", layer, ()) for layer in range(5)]
UP, DOWN = ([Site(f"layers.{layer}.mlp.{name}", "module", layer, ()) for layer in range(5)] for name in ("up", "down"))
HEAD = Site("lm_head", "head", None, ())
CHANGED = [*FIVE, *UP, *DOWN, HEAD]


def searched(*tried, kl=(1, 1, 1)):
    """Of a search that tried these parts, all with the same nats, and left out the others."""
    found = {one.name: Measured(one, np.array(kl, dtype=np.float32), 1) for one in tried}
    left = [one for one in CHANGED if one not in tried]
    return Search(None, CHANGED, ("layer", "module"), 3.0, 2, None, found, left_out=left)


def found(*making, **changes):
    nothing = {"search": None, "subset": None, "examination": None, "internals": None}
    corpus = SimpleNamespace(repeated=0)
    info = SimpleNamespace(quantization=None, config={})
    made = SimpleNamespace(
        **vars(sides(*making)), **dict.fromkeys(("reference", "candidate"), SimpleNamespace(info=info))
    )
    base = {"sides": made, "allowed": [], "corpus": corpus, "not_swapped": ""}
    return SimpleNamespace(**(base | nothing | changes))


def test_parts_that_are_finite_nowhere_are_told_from_those_that_are_somewhere():
    done = searched(FIVE[0])
    done.found |= searched(UP[2], kl=(np.nan,) * 3).found | searched(FIVE[1], kl=(1, np.nan, 3)).found
    nowhere, partly = not_finite(done)
    assert (nowhere.code, nowhere.facts) == ("nowhere_finite", {"parts": ("layers.2.mlp.up",)})
    assert (partly.code, partly.facts) == ("partly_finite", {"parts": ("layers.1",)})
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
    assert told.facts == {"parts": ("dropped layer 3", "added layer 4", "what both models have")}


@pytest.mark.parametrize(
    ("control", "in_report", "told"),
    [
        (0.0, 0.0, []),
        (1e-9, 1e-9, ["control_changed"]),
        (np.inf, None, ["control_not_finite"]),
    ],
)
def test_a_control_that_is_not_zero_or_no_number_is_told(control, in_report, told):
    looking = SimpleNamespace(looks={"layers.0": SimpleNamespace(control=control)})
    part = Told.model_validate(site("layers.0", 0.2, control=in_report))
    warned = warnings_of(found("too little text", examination=looking), (part,), 0)
    assert warned[0].text == "Of making the candidate by quantize.gptq: too little text"
    assert len(warned) == 1 + len(told)
    assert [one.code for one in warned[1:]] == told


@pytest.mark.parametrize(
    ("windows", "documents", "told"), [(6, 6, []), (8, 5, ["few_documents"]), (2, 2, ["no_interval"])]
)
def test_few_documents_and_few_windows_are_warned_of(windows, documents, told):
    warned = too_few(Text(windows=windows, tokens=500, documents=documents))
    assert [one.code for one in warned] == told


@pytest.mark.parametrize(
    ("tried", "ends"),
    [
        ([*FIVE, HEAD, UP[4], DOWN[4]], " 8 of 10 parts within layers; nothing in layers 0–3 was tried."),
        ([*FIVE, HEAD, *UP], " 5 of 10 parts within layers."),
        ([FIVE[0], *FIVE[3:], *UP, *DOWN], " layers 1, 2 and lm_head: the worst part may be among them."),
        (CHANGED, None),
    ],
)
def test_what_the_budget_did_not_reach_is_named_or_counted(tried, ends):
    told = [one.text for one in not_reached(searched(*tried))]
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
        said = forms(found(sides=Sides(*both, None, "bfloat16", "")))
        assert [one.facts for one in said] == [{"model": name, "scheme": "w4a16"} for name in told]
