"""Which parts that differ were asked for, and what is said where none was."""

from collections.abc import Sequence

import pytest

from app.kinds.attribute.request import LEVELS, SiteLevel
from tests.unit.workers.diagnosis.attribute.planted import parts
from workers.diagnosis.attribute.scope import Scope, asked_for, nothing_differs, parts_differ, scope_of
from workers.diagnosis.attribute.sites import Site

SITES = parts(4)
OUTSIDE = [site for site in SITES if site.layer is None]


def of_layer(layer: int) -> list[Site]:
    return [site for site in SITES if site.layer == layer]


def asked(
    differ: Sequence[Site], levels: tuple[SiteLevel, ...] = LEVELS, layers: tuple[int, ...] | None = None
) -> Scope:
    """As a job asks: `differ` are all parts of the model that do."""
    within = [site for site in SITES if layers is None or site.layer in layers]
    changed = [site for site in within if site in differ]
    return scope_of(within, changed, levels, layers, everywhere=lambda: differ)


def test_parts_of_other_kinds_are_neither_considered_nor_unchanged() -> None:
    scope = asked([*of_layer(1), *of_layer(2), SITES[-1]], ("module",))
    assert [site.name for site in scope.chosen] == [
        "layers.1.mlp.up_proj",
        "layers.1.mlp.down_proj",
        "layers.2.mlp.up_proj",
        "layers.2.mlp.down_proj",
        "lm_head",
    ]
    # the modules of layers 0 and 3, embedding and final norm
    assert (scope.considered, scope.unchanged, scope.beside) == (5, 6, 2)
    assert parts_differ(scope) == "5 parts of the chosen kinds differ"
    assert parts_differ(asked(of_layer(1))) == "3 parts differ"
    assert parts_differ(asked(of_layer(1), ("layer",))) == "1 part of the chosen kinds differs"


def test_kinds_that_do_not_differ_are_named_and_so_is_what_does() -> None:
    # a norm that no rounding touched, an expert of a dense model
    assert nothing_differs(asked(of_layer(1), ("norm", "expert"))) == (
        "No norm or expert differs, and nothing outside the layers; what does differ: 1 layer and 2 linear modules."
    )
    # another rotary base: no weight, but every layer computes otherwise
    layers = [site for site in SITES if site.whole]
    assert nothing_differs(asked(layers, ("module",))) == (
        "No linear module differs, and nothing outside the layers; what does differ: 4 layers."
    )
    assert nothing_differs(asked(of_layer(1), ("norm",), (1, 2))) == (
        "No norm in layers 1, 2 differs; what does differ there: 1 layer and 2 linear modules."
    )


def test_what_differs_outside_of_the_chosen_layers_is_counted_and_placed() -> None:
    assert nothing_differs(asked(of_layer(1), layers=(3,))) == (
        "No part of layer 3 differs; elsewhere 3 parts do: 1 layer and 2 linear modules, in layer 1."
    )
    assert nothing_differs(asked([*of_layer(1), *OUTSIDE], layers=(0, 3))) == (
        "No part of layers 0, 3 differs; elsewhere 6 parts do: 1 layer, 2 linear modules, 1 norm, 1 embedding and "
        "1 head, in layer 1, embed_tokens, norm and lm_head."
    )
    assert nothing_differs(asked(OUTSIDE[-1:], layers=(3,))) == (
        "No part of layer 3 differs; elsewhere 1 part does: 1 head, in lm_head."
    )


@pytest.mark.parametrize("layers", [None, (3,)])
def test_that_every_weight_is_the_references_is_said_where_nothing_differs_anywhere(
    layers: tuple[int, ...] | None,
) -> None:
    scope = asked([], layers=layers)
    assert (scope.considered, scope.beside) == (0, 0)
    assert nothing_differs(scope) == "No part differs: every weight of the candidate is the reference's."


def test_other_layers_are_not_looked_at_where_something_of_the_chosen_ones_differs() -> None:
    def refuse() -> Sequence[Site]:
        raise AssertionError("every weight would be read once more")

    within = of_layer(1)
    assert scope_of(within, within, LEVELS, (1,), everywhere=refuse).considered == 3
    assert scope_of(within, within, ("norm",), (1,), everywhere=refuse).beside == 3


def test_of_what_the_worst_part_is_the_worst_is_told_where_not_all_was_asked_for() -> None:
    differ = [*of_layer(0), *of_layer(1), *of_layer(2), *OUTSIDE]
    everything, layers = asked(differ), asked(differ, ("layer",))
    # whole layers hold all that is in them
    assert (everything.whole_model, layers.whole_model) == (True, True)
    assert (asked_for(everything), asked_for(layers)) == ("", "")
    two = asked(differ, layers=(0, 1))
    assert not two.whole_model
    assert asked_for(two) == " of the 2 layers asked for"
    assert asked_for(asked(differ, layers=(1,))) == " of the one layer asked for"
    modules = asked(differ, ("module",))
    assert not modules.whole_model
    assert asked_for(modules) == " of the kinds asked for (linear modules)"
    assert asked_for(asked(differ, ("module",), (0, 1))) == (
        " of the kinds asked for (linear modules) in the 2 layers asked for"
    )
