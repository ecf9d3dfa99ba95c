"""Pairs, and the choice of parts that share nothing."""

import numpy as np
import pytest

from app.contracts.report import Mean
from workers.diagnosis.attribute.additivity import disjoint, is_far, is_near, pairs
from workers.diagnosis.attribute.search import Measured
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


def measured(*parts: tuple[Site, list[float]]) -> list[Measured]:
    """Parts as a search ranks them, of the nats at every position."""
    return [Measured(part, np.array(kl, dtype=np.float32), len(kl), 0) for part, kl in parts]


def test_a_layer_gives_way_to_the_module_that_does_it() -> None:
    layer, module, small = site("layers.1", 1, "layer"), site("m", 1), site("s", 1)
    other = site("layers.2", 2, "layer")
    ranked = measured((layer, [1.0]), (module, [0.8]), (other, [0.5]), (small, [0.1]))
    assert [one.name for one in disjoint(ranked, 5)] == ["m", "layers.2", "s"]
    assert [one.name for one in disjoint(ranked, 1)] == ["m"]


def test_a_layer_whose_damage_is_spread_stays() -> None:
    layer, module = site("layers.1", 1, "layer"), site("m", 1)
    assert [one.name for one in disjoint(measured((layer, [1.0]), (module, [0.3])), 5)] == ["layers.1"]


def test_a_layer_is_compared_with_its_part_on_the_tokens_that_both_saw() -> None:
    layer, module = site("layers.1", 1, "layer"), site("m", 1)
    # the module, dropped early, came to no such nats as the layer on the tokens that it did not see
    dropped = measured((layer, [1.0, 1.0, 9.0, 9.0]), (module, [4.9, 5.1]))
    assert [one.name for one in disjoint(dropped, 5)] == ["layers.1"]
    # the layer, dropped early, cost on its tokens what the module cost there, and not what that cost later
    for kl, names in (([9.0, 9.0, 0.1, 0.1], ["m", "b"]), ([0.1, 0.1, 9.0, 9.0], ["b", "layers.1"])):
        ranked = measured((site("b", 2), [1.0] * 4), (layer, [9.0, 9.0]))
        ranked.insert(0 if names[0] == "m" else 2, measured((module, kl))[0])
        assert [one.name for one in disjoint(ranked, 5)] == names


def test_what_costs_nothing_does_not_hide_what_was_dropped_before() -> None:
    ranked = measured((site("a", 1), [1.0, 1.0]), (site("b", 2), [0.0, 0.0]), (site("c", 3), [0.5]))
    assert [one.name for one in disjoint(ranked, 5)] == ["a", "c"]
