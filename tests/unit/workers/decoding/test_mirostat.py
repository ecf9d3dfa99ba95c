"""Mirostat beside its algorithm written anew, and beside what it promises: the surprise that was asked for."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contracts.decoding import Mirostat
from tests.support.decoding import TableModel, random_model, softmax
from workers.decoding.loop import decode
from workers.decoding.mirostat import size, zipf
from workers.decoding.uniforms import uniforms

PROMPTS = [(1, 2, 3), (4, 4, 1, 2), (0,)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("tau", "rate", "m"), [(3.0, 1.0, 100), (1.5, 0.3, 5), (2.0, 0.1, 20)])
def test_it_follows_its_algorithm(seed: int, tau: float, rate: float, m: int) -> None:
    model = random_model(30, seed=seed)

    made = decode(model, PROMPTS, Mirostat(name="mirostat", tau=tau, rate=rate, m=m), max_tokens=30, seed=seed)

    for key, (prompt, one) in enumerate(zip(PROMPTS, made, strict=True)):
        text, mu = prompt, 2 * tau
        for u in uniforms(seed, key, 30):
            p = softmax(model.logits(text))
            order = sorted(range(30), key=lambda token: (-p[token], token))
            top = p[order]
            t = [math.log((i + 1) / i) for i in range(1, min(m, 30))]
            b = [math.log(top[i - 1] / top[i]) for i in range(1, min(m, 30))]
            s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
            k = ((s - 1) * 2**mu / (1 - 30 ** (1 - s))) ** (1 / s)
            kept = set(order[: max(1, min(30, round(k)))])
            left = np.array([p[token] if token in kept else 0.0 for token in range(30)])
            token = int(np.argmax(np.cumsum(left) > u * left.sum()))
            mu -= rate * (-math.log2(p[token]) - tau)
            text = (*text, token)
        assert text[len(prompt) :] == one.tokens


def _zipfian(vocabulary: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, vocabulary + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.3])
def test_the_exponent_of_a_zipfian_distribution_is_found(exponent: float) -> None:
    assert zipf(np.log(_zipfian(5000, exponent)[:100])) == pytest.approx(exponent, rel=1e-9)


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.0 + 1e-12, 1.3])
def test_the_size_is_that_of_the_formula_on_both_sides_of_one(exponent: float) -> None:
    beside = exponent + (1e-7 if abs(exponent - 1) < 1e-6 else 0)
    expected = ((beside - 1) * 2**6.0 / (1 - 50000 ** (1 - beside))) ** (1 / beside)

    assert size(exponent, 6.0, 50000) == max(1, round(expected))


def test_the_size_stays_between_one_and_the_vocabulary() -> None:
    assert size(1.2, -50.0, 100) == 1
    assert size(1.2, 80.0, 100) == 100
    assert size(0.0, 3.0, 100) == 1


@pytest.mark.parametrize("tau", [3.0, 4.5])
def test_the_mean_surprise_becomes_what_was_asked_for(tau: float) -> None:
    p = _zipfian(2000, 1.1)
    shuffled = np.random.default_rng(0).permutation(p)
    model = TableModel(2000, lambda text: np.log(shuffled))

    made = decode(model, [(0,), (1,), (2,)], Mirostat(name="mirostat", tau=tau, rate=0.2), max_tokens=300)

    surprise = [-math.log2(shuffled[token]) for one in made for token in one.tokens]
    assert np.mean(surprise) == pytest.approx(tau, abs=0.1)
    assert -(p * np.log2(p)).sum() > 6  # what plain sampling has
