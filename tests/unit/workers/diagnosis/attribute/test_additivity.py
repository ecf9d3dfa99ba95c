"""Ratios with intervals, pairs and the choice of parts that share nothing."""

import numpy as np
import pytest

from app.contracts.report import Mean
from workers.diagnosis.attribute.additivity import disjoint, is_far, pairs, ratio
from workers.diagnosis.attribute.sites import Piece, Site
from workers.distributions.token_values import Positions


def where(documents: int, each: int) -> Positions:
    document = np.repeat(np.arange(documents), each).astype(np.int32)
    return Positions(document, document, document, document, document)


def site(name: str, layer: int | None, kind: str = "module") -> Site:
    return Site(name, kind, layer, (Piece(name),))  # type: ignore[arg-type]


def test_a_constant_ratio_has_an_interval_of_no_width() -> None:
    bottom = np.random.default_rng(0).exponential(size=200)
    found = ratio(0.4 * bottom, bottom, where(20, 10), seed=0)
    assert found is not None
    assert found.ci is not None
    assert (found.mean, *found.ci) == pytest.approx((0.4, 0.4, 0.4), rel=1e-9)
    assert found.clusters == "documents"


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    """Documents with effects of their own: 95 % within what 150 simulations can tell."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(150):
        effect = np.repeat(rng.lognormal(0, 0.5, 40), 20)
        part = np.repeat(rng.uniform(0.2, 0.4, 40), 20)
        bottom = effect * rng.exponential(size=800)
        found = ratio(part * bottom, bottom, where(40, 20), seed=seed)
        assert found is not None
        assert found.ci is not None
        covered += found.ci[0] <= 0.3 <= found.ci[1]
    assert 0.89 <= covered / 150 <= 0.99


def test_positions_that_are_not_finite_are_left_out() -> None:
    bottom = np.ones(40)
    top = np.full(40, 0.5)
    top[3] = np.nan
    found = ratio(top, bottom, where(8, 5), seed=0)
    assert found is not None
    assert found.mean == pytest.approx(0.5)


def test_a_bottom_of_zero_has_no_ratio() -> None:
    assert ratio(np.ones(10), np.zeros(10), where(10, 1), seed=0) is None
    assert ratio(np.full(10, np.nan), np.ones(10), where(10, 1), seed=0) is None


@pytest.mark.parametrize(
    ("mean", "ci", "far"),
    [(1.5, (1.2, 1.9), True), (1.05, (1.02, 1.08), False), (1.5, (0.9, 2.2), False), (0.7, (0.6, 0.8), True)],
)
def test_far_is_sure_and_large(mean: float, ci: tuple[float, float], far: bool) -> None:
    assert is_far(Mean(mean=mean, ci=ci, clusters="documents")) is far


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
