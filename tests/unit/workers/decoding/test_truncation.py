"""Truncations against their definitions in float64, against transformers', and at their borders."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    EtaLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from app.contracts.decoding import DECODER, Shaping
from workers.decoding.truncation import FEW, eta, min_p, shaped, top_k, top_p, typical

Array = NDArray[np.float64]


def _logits(rows: int, vocabulary: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def _shaping(name: str, **values: Any) -> Shaping:
    return cast(Shaping, DECODER.validate_python({"name": name, **values}))


CASES = [
    (_shaping("temperature", temperature=0.7), []),
    (_shaping("top_k", k=7, temperature=0.8), [TopKLogitsWarper(top_k=7)]),
    (_shaping("top_p", p=0.8, temperature=1.3), [TopPLogitsWarper(top_p=0.8)]),
    (_shaping("min_p", p=0.05, temperature=0.9), [MinPLogitsWarper(min_p=0.05)]),
    (_shaping("eta", epsilon=0.01), [EtaLogitsWarper(epsilon=0.01)]),
    (_shaping("typical", mass=0.6, temperature=1.1), [TypicalLogitsWarper(mass=0.6)]),
]


@pytest.mark.parametrize(("shaping", "warpers"), CASES, ids=lambda case: getattr(case, "name", ""))
@pytest.mark.parametrize("vocabulary", [40, 2 * FEW + 3])
def test_the_distribution_is_that_of_transformers(shaping: Shaping, warpers: list[Any], vocabulary: int) -> None:
    logits = _logits(12, vocabulary)
    chain: Any = LogitsProcessorList([TemperatureLogitsWarper(temperature=shaping.temperature), *warpers])

    theirs = chain(torch.zeros(12, 1, dtype=torch.long), logits.clone()).softmax(1)

    ours = shaped(logits, shaping)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def _by_definition(p: Array, shaping: Shaping) -> set[int]:
    """Tokens that stay, from the papers' formulas."""
    order = sorted(range(len(p)), key=lambda token: (-p[token], token))
    entropy = -sum(x * np.log(x) for x in p if x > 0)
    match shaping.name:
        case "top_k":
            return set(order[: shaping.k])
        case "top_p":
            count = next(n for n in range(1, len(p) + 1) if n == len(p) or p[order[:n]].sum() >= shaping.p)
            return set(order[:count])
        case "min_p":
            return {token for token in order if p[token] >= shaping.p * p.max()}
        case "eta":
            least = min(shaping.epsilon, np.sqrt(shaping.epsilon) * np.exp(-entropy))
            return {token for token in order if p[token] >= least} or {order[0]}
        case "typical":
            near = sorted(range(len(p)), key=lambda token: (abs(-np.log(p[token]) - entropy), token))
            count = next(n for n in range(1, len(p) + 1) if n == len(p) or p[near[:n]].sum() >= shaping.mass)
            return set(near[:count])
    return set(order)


HAND_MADE = np.array(
    [
        [0.5, 0.25, 0.125, 0.0625, 0.0625],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.96, 0.01, 0.01, 0.01, 0.01],
        [0.05, 0.3, 0.1, 0.15, 0.4],
    ]
)


@pytest.mark.parametrize(
    "shaping",
    [
        _shaping("temperature", temperature=1.0),
        _shaping("top_k", k=1),
        _shaping("top_k", k=3),
        _shaping("top_k", k=100),
        _shaping("top_p", p=0.3),
        _shaping("top_p", p=0.74),
        _shaping("top_p", p=1.0),
        _shaping("min_p", p=0.24),
        _shaping("min_p", p=1.0),
        _shaping("eta", epsilon=0.3),
        _shaping("eta", epsilon=0.99),
        _shaping("typical", mass=0.35),
        _shaping("typical", mass=0.9),
    ],
    ids=str,
)
def test_hand_made_distributions_keep_what_the_definition_keeps(shaping: Shaping) -> None:
    shaped_RV = shaped(torch.tensor(HAND_MADE).log(), shaping).numpy()

    for row, p in zip(shaped_RV, HAND_MADE, strict=True):
        stays = _by_definition(p, shaping)
        expected = np.array([p[token] if token in stays else 0.0 for token in range(len(p))])
        assert set(np.flatnonzero(row).tolist()) == stays
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-12)


def test_ties_at_the_border_keep_the_lower_ids() -> None:
    flat = torch.full((1, 3 * FEW), 1 / (3 * FEW), dtype=torch.float64)

    for made in (top_k(flat, 5), top_p(flat, 4.5 / (3 * FEW)), typical(flat, 4.5 / (3 * FEW))):
        assert made.nonzero()[:, 1].tolist() == [0, 1, 2, 3, 4]


def test_a_row_that_needs_more_than_a_few_tokens_gets_them() -> None:
    vocabulary = 4 * FEW
    logits = torch.stack([torch.linspace(0, 1, vocabulary), torch.linspace(0, 40, vocabulary)]).double()
    p = logits.softmax(1)

    kept = top_p(p, 0.9)

    for row in range(2):
        ordered = p[row].sort(descending=True).values
        count = int((ordered.cumsum(0) < 0.9).sum()) + 1
        assert int((kept[row] > 0).sum()) == count
    assert int((kept[0] > 0).sum()) > FEW > int((kept[1] > 0).sum())


def test_only_typical_sampling_may_drop_the_most_probable_token() -> None:
    p = _logits(6, 50, scale=0.2).double().softmax(1)

    for made in (top_k(p, 1), top_p(p, 1e-9), min_p(p, 1.0), eta(p, 0.999999)):
        assert torch.equal(made.argmax(1), p.argmax(1))
        assert bool((made.sum(1) > 0).all())
    surprising = torch.tensor([[0.4, 0.2, 0.2, 0.2]], dtype=torch.float64)  # entropy 1.33, ln 5 = 1.61, ln 2.5 = 0.92
    assert typical(surprising, 0.3).nonzero()[:, 1].tolist() == [1, 2]
