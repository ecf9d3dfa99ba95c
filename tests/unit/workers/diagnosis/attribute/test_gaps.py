"""Gaps between models of another depth, as parts of a report."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.kinds.attribute.report import Cause, Unclear
from app.models.checkpoint import inspect
from tests.support import internals_blocks
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_sites
from workers.diagnosis.attribute.treatment import Patient
from workers.measuring.subject import recipe_of


@pytest.mark.parametrize(
    ("ci", "shown"),
    [((0.154, 0.443), True), ((0.0, 0.443), False), (None, None)],
    ids=["sure", "unsure", "no interval"],
)
def test_a_gap_is_shown_by_the_interval_of_its_nats(
    tiny: Callable[..., Path], ci: tuple[float, float] | None, shown: bool | None
) -> None:
    info = inspect(tiny("llama"))
    recipe = recipe_of([{"type": "prune.layers", "layers": [0, 1]}])
    gap = internals_blocks.alignment()["gaps"][0] | {
        "at_reference": 1,
        "at_candidate": 0,
        "layers": [{"kind": "dropped", "layer": 0, "of": None, "distance": None, "added": 0.3}],
        "nats": {"mean": 0.226, "ci": ci},
    }
    block = internals_blocks.alignment() | {"gaps": [gap]}
    found = SimpleNamespace(
        not_swapped="the models have 3 and 1 layers",
        internals=internals_blocks.dense(alignment=block),
        patient=lambda: Patient(info, recipe, info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert made.shown is shown
    assert (made.cause, made.unclear) == (("unclear", "no_damage_shown") if shown is False else ("removed", None))
    assert made.treatment is not None
    if shown is False:
        assert "no damage is shown with 768 tokens of 12 documents" in made.treatment.why
    else:
        assert made.treatment.recipe is not None


RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
DROPPED = {"kind": "dropped", "layer": 0, "of": None, "distance": None, "added": 0.3}
IDENTITY = {"kind": "identity", "layer": 1, "of": 0, "distance": 1.4, "added": 0.0}
COPY = {"kind": "duplicate", "layer": 1, "of": 0, "distance": 0.0, "added": 0.3}
NOTHING = {"nats": {"mean": 0.0, "ci": (0.0, 0.0)}, "share": None, "share_ci": None}
UNSURE = {"nats": {"mean": 0.2, "ci": (0.0, 0.5)}, "share": 0.4, "share_ci": (0.1, 0.9)}
TRIFLE = {"nats": {"mean": 1e-4, "ci": (5e-5, 2e-4)}, "share": 2e-4, "share_ci": (1e-4, 4e-4)}
SURE = {"nats": {"mean": 0.2, "ci": (0.1, 0.3)}, "share": 0.4, "share_ci": (0.2, 0.6)}
NO_INTERVAL = {"nats": {"mean": 0.2, "ci": None}, "share": 0.4, "share_ci": None}


@pytest.mark.parametrize(
    ("layers", "changes", "cause", "unclear", "why", "treatment"),
    [
        ([IDENTITY], NOTHING, "negligible", None, "identity; its nats are 0; ", "it costs nothing"),
        ([DROPPED], NOTHING, "negligible", None, "dropped; its nats are 0; ", "it costs nothing"),
        ([DROPPED], TRIFLE, "negligible", None, "dropped; 0.02 % of the damage; ", "what it costs is negligible"),
        ([DROPPED], UNSURE, "unclear", "no_damage_shown", "dropped; no damage is shown, ", "more text would tell"),
        ([COPY], UNSURE, "unclear", "no_damage_shown", "duplicate; no damage is shown, ", "more text would tell"),
        ([DROPPED], SURE, "removed", None, "dropped; found again in ", ({"type": "prune.layers", "layers": [1]}, RTN)),
        ([COPY], SURE, "inserted", None, "duplicate; found again in ", (RTN,)),
        ([DROPPED, COPY], SURE, "removed", None, "dropped and duplicate; found again in ", "dropped other layers"),
        ([COPY], NO_INTERVAL, "inserted", None, "duplicate; found again in ", (RTN,)),
    ],
)
def test_a_gap_that_costs_nothing_for_sure_has_the_cause_that_any_part_would_have(
    tiny: Callable[..., Path],
    layers: list[dict[str, Any]],
    changes: dict[str, Any],
    cause: Cause,
    unclear: Unclear | None,
    why: str,
    treatment: tuple[dict[str, Any], ...] | str,
) -> None:
    """`treatment`: its recipe, or the end of why there is none."""
    info = inspect(tiny("llama"))
    step, before = (
        ({"type": "prune.layers", "layers": [0, 1]}, 0)
        if DROPPED in layers
        else ({"type": "extend.duplicate", "layers": [0]}, 2)
    )
    recipe = recipe_of([step, RTN])
    gap = internals_blocks.alignment()["gaps"][0] | {"at_candidate": before, "layers": layers} | changes
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [gap]}),
        patient=lambda: Patient(info, recipe, info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert (made.cause, made.unclear) == (cause, unclear)
    assert made.why.startswith(why)
    assert made.why.endswith("found again in 100 % of resamplings of the documents")
    assert made.treatment is not None
    if isinstance(treatment, str):
        assert made.treatment.recipe is None
        assert made.treatment.why.endswith(treatment)
    else:
        assert made.treatment.recipe == treatment


def test_a_gap_without_finite_logits_is_no_part(tiny: Callable[..., Path]) -> None:
    gaps = internals_blocks.alignment()["gaps"]
    block = internals_blocks.alignment() | {"gaps": [gaps[0] | {"nats": {"mean": None, "ci": None}}, gaps[1]]}
    info = inspect(tiny("llama"))
    found = SimpleNamespace(internals=internals_blocks.dense(alignment=block), patient=lambda: Patient(info, (), info))
    assert [site.name for site in gap_sites(cast("Found", found))] == ["added layer 4"]
