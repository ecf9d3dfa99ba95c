"""Distances after shaping beside the definitions in float64, where supports agree and where they do not."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch

from app.contracts.decoding import DECODER, Shaping
from tests.support.decoding import softmax
from workers.decoding.distances import ShapedDistances, distances_of, shaped_distances, summarized
from workers.distributions.head import Head


def _shaping(name: str, **values: Any) -> Shaping:
    return cast(Shaping, DECODER.validate_python({"name": name, **values}))


SHAPINGS = (
    _shaping("temperature", temperature=0.3),
    _shaping("temperature", temperature=2.0),
    _shaping("top_k", k=4),
    _shaping("top_p", p=0.85, temperature=0.8),
    _shaping("min_p", p=0.1),
    _shaping("eta", epsilon=0.05),
    _shaping("typical", mass=0.7),
)


def _head(seed: int, vocabulary: int = 60, width: int = 8) -> Head:
    weights = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(seed))
    return Head(weights, None, 1.0, None, f"{seed}")


def _hidden(seed: int, positions: int = 40, width: int = 8) -> torch.Tensor:
    return torch.randn(positions, width, generator=torch.Generator().manual_seed(seed))


def _left(p: np.ndarray, shaping: Shaping) -> np.ndarray:
    """The distribution that is left, in float64, from the definition."""
    order = np.lexsort((np.arange(len(p)), -p))
    entropy = -float((p * np.log(p)).sum())
    match shaping.name:
        case "temperature":
            stays = order
        case "top_k":
            stays = order[: shaping.k]
        case "top_p":
            stays = order[: int((np.cumsum(p[order]) < shaping.p).sum()) + 1]
        case "min_p":
            stays = np.flatnonzero(p >= shaping.p * p.max())
        case "eta":
            stays = np.flatnonzero(p >= min(shaping.epsilon, shaping.epsilon**0.5 * np.exp(-entropy)))
        case _:
            near = np.argsort(np.abs(-np.log(p) - entropy), kind="stable")
            stays = near[: int((np.cumsum(p[near]) < shaping.mass).sum()) + 1]
    made = np.zeros_like(p)
    made[stays] = p[stays]
    return np.asarray(made / made.sum())


@pytest.mark.parametrize("shaping", SHAPINGS, ids=str)
def test_each_distance_is_its_definition(shaping: Shaping) -> None:
    heads, hidden = (_head(1), _head(1)), (_hidden(3), _hidden(3) + 0.3 * _hidden(4))

    (made,) = shaped_distances([hidden], *heads, [shaping])

    reference, candidate = (head.logits(states).double().numpy() for head, states in zip(heads, hidden, strict=True))
    for row in range(40):
        p = _left(softmax(reference[row] / shaping.temperature), shaping)
        q = _left(softmax(candidate[row] / shaping.temperature), shaping)
        lost = p[(p > 0) & (q == 0)].sum()
        with np.errstate(divide="ignore"):
            kl = np.inf if lost else float(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q.clip(1e-300)), 0).sum())
        assert made.kl[row] == pytest.approx(kl, rel=2e-4, abs=1e-6)
        assert made.tv[row] == pytest.approx(np.abs(p - q).sum() / 2, rel=1e-4, abs=1e-6)
        assert made.lost[row] == pytest.approx(lost, rel=1e-4)
        assert made.top1[row] == (p.argmax() == q.argmax())
        assert made.supports_differ[row] == bool(((p > 0) != (q > 0)).any())
    if shaping.name != "temperature":
        assert 0 < np.isinf(made.kl).mean() < 1  # both cases are met


@pytest.mark.parametrize("shaping", SHAPINGS, ids=str)
def test_a_model_is_at_no_distance_from_itself(shaping: Shaping) -> None:
    (made,) = shaped_distances([(_hidden(3), _hidden(3))], _head(1), _head(1), [shaping])

    assert not made.kl.any()
    assert not made.tv.any()
    assert not made.lost.any()
    assert made.top1.all()
    assert not made.supports_differ.any()


def test_a_hand_made_pair() -> None:
    """Two tokens kept of p and of q: (2/3, 1/3, 0) and (0.5, 0, 0.5)."""
    p, q = torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([[0.4, 0.2, 0.4]]).log()

    made = distances_of(p, q, _shaping("top_k", k=2))
    back = distances_of(q, p, _shaping("top_k", k=2))
    warm = distances_of(p, q, _shaping("temperature", temperature=1.0))

    assert made.kl[0] == np.inf
    assert back.kl[0] == np.inf
    assert made.tv[0] == pytest.approx(0.5)
    assert made.lost[0] == pytest.approx(1 / 3)
    assert back.lost[0] == pytest.approx(0.5)
    assert warm.kl[0] == pytest.approx(0.6 * np.log(1.5) + 0.3 * np.log(1.5) + 0.1 * np.log(0.25))


def test_a_probability_that_rounds_to_zero_leaves_a_finite_divergence() -> None:
    """At temperature 0.1 float32 knows no number as small as q of the second token; its logarithm it does know."""
    p, q = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -40.0]])

    made = distances_of(p, q, _shaping("temperature", temperature=0.1))

    assert made.kl[0] == pytest.approx(np.log(0.5) + 0.5 * 400, rel=1e-6)
    assert not made.supports_differ[0]


def test_logits_that_are_not_finite_are_marked_and_left_out() -> None:
    reference, candidate = _hidden(3), _hidden(4)
    candidate[5, 0] = torch.nan

    (made,) = shaped_distances([(reference, candidate)], _head(1), _head(1), [SHAPINGS[3]])
    summary = summarized(made, np.arange(40) // 4, np.arange(40) // 4)

    assert np.flatnonzero(~made.finite).tolist() == [5]
    assert np.isnan(made.tv[5])
    assert summary.positions == 39
    assert np.isfinite(summary.tv.mean)
    assert summarized(_of(finite=[False]), [0], [0]) is None


def _of(finite: Sequence[bool], kl: Sequence[float] = (0.0,), differ: Sequence[bool] = (False,)) -> ShapedDistances:
    n = len(finite)
    return ShapedDistances(
        kl=np.array(kl),
        tv=np.full(n, 0.25),
        lost=np.zeros(n),
        top1=np.ones(n, dtype=bool),
        supports_differ=np.array(differ),
        finite=np.array(finite),
    )


def test_the_mean_divergence_is_over_the_positions_where_it_exists() -> None:
    kl = [0.1, np.inf, 0.3, np.inf, 0.2, 0.4, 0.6, 0.0]
    differ = [False, True, True, True, False, False, False, False]

    summary = summarized(_of([True] * 8, kl, differ), range(8), range(8))

    assert summary.kl.mean == pytest.approx(np.mean([0.1, 0.3, 0.2, 0.4, 0.6, 0.0]))
    assert summary.kl.interval[0] < summary.kl.mean < summary.kl.interval[1]
    assert summary.kl_infinite.mean == 0.25
    assert summary.supports_differ.mean == 0.375
    assert summary.tv.mean == 0.25
    everywhere = summarized(_of([True], [np.inf], [True]), [0], [0])
    assert everywhere.kl is None


def test_pairs_are_read_one_after_the_other_and_may_be_stopped() -> None:
    head, hidden = _head(1), (_hidden(3), _hidden(4))
    told: list[int] = []

    whole = shaped_distances([hidden], head, head, SHAPINGS)
    parts = shaped_distances(
        [(hidden[0][:7], hidden[1][:7]), (hidden[0][7:], hidden[1][7:])], head, head, SHAPINGS, progress=told.append
    )

    assert told == [7, 40]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.tv, other.tv, rtol=1e-5, atol=1e-7)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        shaped_distances([hidden], head, head, SHAPINGS, check_cancelled=stop)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="60 and 50"):
        shaped_distances([], _head(1), _head(1, vocabulary=50), SHAPINGS)
    with pytest.raises(ValueError, match="40 and 39"):
        shaped_distances([(_hidden(1), _hidden(1, 39))], _head(1), _head(1), SHAPINGS)
    with pytest.raises(ValueError, match="no positions"):
        shaped_distances([], _head(1), _head(1), SHAPINGS)
