"""The parts of a report."""

from types import SimpleNamespace

import numpy as np

from app.kinds.attribute.report import Site as Told
from app.models.checkpoint import inspect
from tests.support.attribute_reports import site
from workers.diagnosis.attribute.report import treatment
from workers.diagnosis.attribute.sites import sites_of
from workers.diagnosis.attribute.treatment import Untreated
from workers.measuring.subject import recipe_of


def test_the_treatment_of_several_parts_leaves_out_those_whose_damage_is_not_shown(tiny):
    info = inspect(tiny("llama"))
    layers = {part.name: part for part in sites_of(info)}
    recipe = recipe_of([{"type": "quantize.rtn", "bits": 4}])
    where = SimpleNamespace(document=np.array([0, 0, 1, 1, 2]))
    found = SimpleNamespace(patient=lambda: Untreated(info, recipe, info), subset=SimpleNamespace(where=where))

    def part(name, **changes):
        return layers[name], Told.model_validate(site(name, 0.1, kind="layer", tokens=4, **changes))

    unsure = part("layers.0", shown=False)
    alone = treatment(found, [unsure])
    assert alone.recipe is None
    assert "no damage is shown with 4 tokens of 2 documents" in alone.why
    both = treatment(found, [unsure, part("layers.1", cause="size", shown=True)])
    assert both.why == "layers.1: 6 bits instead of 4"
