"""Pairs, and the choice of parts that share nothing."""

import pytest

from app.contracts.report import Mean
from workers.diagnosis.attribute.additivity import disjoint, is_far, is_near, pairs
from workers.diagnosis.attribute.sites import Piece, Site


def site(name: str, layer: int | None, kind: str = "module") -> Site:
    return Site(name, kind, layer, (Piece(name),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "ci", "far"),
    [(1.5, (1.2, 1.9), True), (1.05, (1.02, 1.08), False), (1.5, (0.9, 2.2), False), (0.7, (0.6, 0.8), True)],
)
def test_far_is_sure_and_large(mean: float, ci: tuple[float, float], far: bool) -> None:
    assert is_far(Mean(mean=mean, ci=ci, clusters="documents")) is far


@pytest.mark.parametrize(
    ("ci", "near"), [((0.92, 1.06), True), ((0.799, 1.044), False), ((0.95, 1.1), False), ((1.2, 1.9), False)]
)
def test_near_is_the_whole_interval_within_the_tenth(ci: tuple[float, float], near: bool) -> None:
    found = Mean(mean=sum(ci) / 2, ci=ci, clusters="documents")
    assert is_near(found) is near
    assert not (near and is_far(found))


def test_what_has_no_interval_is_not_near() -> None:
    assert not is_near(None)
    assert not is_near(Mean(mean=1.0, ci=None))


def test_what_has_no_interval_is_not_far() -> None:
    assert not is_far(None)
    assert not is_far(Mean(mean=3.0, ci=None))


def test_pairs_are_of_parts_that_share_nothing_the_first_ones_first() -> None:
    sites = [site("layers.1", 1, "layer"), site("a", 1), site("b", 2), site("c", 3)]
    assert [(one.name, other.name) for one, other in pairs(sites, 3)] == [
        ("layers.1", "b"),
        ("layers.1", "c"),
        ("a", "b"),
    ]


def test_a_layer_gives_way_to_the_module_that_does_it() -> None:
    layer, module, small = site("layers.1", 1, "layer"), site("m", 1), site("s", 1)
    other = site("layers.2", 2, "layer")
    ranked = [(layer, 1.0), (module, 0.8), (other, 0.5), (small, 0.1)]
    assert [one.name for one in disjoint(ranked, 5)] == ["m", "layers.2", "s"]
    assert [one.name for one in disjoint(ranked, 1)] == ["m"]


def test_a_layer_whose_damage_is_spread_stays() -> None:
    layer, module = site("layers.1", 1, "layer"), site("m", 1)
    assert [one.name for one in disjoint([(layer, 1.0), (module, 0.3)], 5)] == ["layers.1"]
