"""Gaps between models of another depth, as parts of a report."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from app.models.checkpoint import inspect
from tests.support import internals_blocks
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_sites
from workers.diagnosis.attribute.sentence import sentence
from workers.diagnosis.attribute.treatment import Patient
from workers.diagnosis.mitigate.subject import recipe_of


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
    assert made.treatment is not None
    verdict_ = sentence((made,), None, cast("Found", found))
    if shown is False:
        assert "no damage is shown with 768 tokens of 12 documents" in made.treatment.why
        assert verdict_.startswith("No gap is shown to cost anything alone: the one that costs most, dropped layer 0, ")
    else:
        assert made.treatment.recipe is not None
        assert verdict_.startswith("The worst gap is dropped layer 0, which alone costs")
