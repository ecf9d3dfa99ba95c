"""What is said of parts that the budget did not reach for."""

from typing import Any, cast

import numpy as np
import pytest

from workers.diagnosis.attribute.reach import not_reached
from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Site

LAYERS = [Site(f"layers.{layer}", "layer", layer, ()) for layer in range(5)]
UP, DOWN = ([Site(f"layers.{layer}.mlp.{name}", "module", layer, ()) for layer in range(5)] for name in ("up", "down"))
HEAD = Site("lm_head", "head", None, ())


def told(*tried: Site, by_damage: bool = True) -> list[str]:
    """Of a search that tried these parts and left out the others."""
    changed = [*LAYERS, *UP, *DOWN, HEAD]
    found = {one.name: Measured(one, np.ones(3, dtype=np.float32), 1, 0) for one in tried}
    left = [one for one in changed if one not in tried]
    nothing = cast("Any", None)
    done = Search(nothing, changed, ("layer", "module"), 3.0, 2, nothing, found, left_out=left, by_damage=by_damage)
    return not_reached(done)


def test_layers_that_were_not_tried_are_named() -> None:
    (said,) = told(LAYERS[0], LAYERS[3], LAYERS[4], *UP, *DOWN)
    assert said.startswith("The budget of 3 forward passes did not reach for all that differs: ")
    assert "layers 1, 2 and lm_head were not tried" in said


@pytest.mark.parametrize(
    ("tried", "by_damage", "words"),
    [
        (
            (UP[4], DOWN[4]),
            True,
            "left out 8 of 10 parts within layers that differ: it looked at all that differs in layer 4, and at "
            "nothing in layers 0–3. Layers came in the order of their nats.",
        ),
        (
            (UP[1], DOWN[1], UP[3], DOWN[3], UP[0]),
            True,
            "left out 5 of 10 parts within layers that differ: it looked at all that differs in layers 1, 3 and a part "
            "of what differs in layer 0, and at nothing in layers 2, 4. Layers came in the order of their nats.",
        ),
        (
            tuple(UP),
            False,
            "left out 5 of 10 parts within layers that differ: it looked at a part of what differs in layers 0–4. "
            "Parts are spread evenly over the model.",
        ),
        ((), True, "left out all 10 parts within layers that differ: it looked into no layer."),
    ],
)
def test_it_is_told_which_layers_were_looked_into_and_which_were_not(
    tried: tuple[Site, ...], by_damage: bool, words: str
) -> None:
    (said,) = told(*LAYERS, HEAD, *tried, by_damage=by_damage)
    assert said == f"The budget of 3 forward passes {words}"


def test_where_everything_was_tried_nothing_is_said() -> None:
    assert told(*LAYERS, *UP, *DOWN, HEAD) == []
