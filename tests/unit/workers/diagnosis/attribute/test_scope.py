"""Which parts that differ were asked for, and what differs beside them."""

from collections.abc import Sequence

from app.kinds.attribute.request import LEVELS, SiteLevel
from tests.unit.workers.diagnosis.attribute.planted import parts
from workers.diagnosis.attribute.scope import Scope, scope_of
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
    assert (scope.considered, scope.unchanged, len(scope.other_kinds), scope.elsewhere) == (5, 6, 2, ())


def test_what_differs_outside_of_the_chosen_layers_is_looked_up_if_nothing_in_them_does() -> None:
    differ = [*of_layer(1), *OUTSIDE]
    scope = asked(differ, layers=(0, 3))
    assert (scope.considered, scope.other_kinds, list(scope.elsewhere)) == (0, (), differ)
    for layers in (None, (3,)):
        assert asked([], layers=layers).elsewhere == ()


def test_other_layers_are_not_looked_at_if_something_in_the_chosen_ones_differs() -> None:
    def refuse() -> Sequence[Site]:
        raise AssertionError("every weight would be read once more")

    within = of_layer(1)
    assert scope_of(within, within, LEVELS, (1,), everywhere=refuse).considered == 3
    assert len(scope_of(within, within, ("norm",), (1,), everywhere=refuse).other_kinds) == 3
