"""Every decoder on hand-made distributions, beside its definition written anew with numpy, one prompt at a time."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from app.contracts.decoding import (
    Contrastive,
    Decoder,
    Eta,
    Fsd,
    FsdD,
    Greedy,
    MinP,
    TemperatureSampling,
    TopK,
    TopP,
    Typical,
    defaults,
)
from tests.support.decoding import TableModel, random_model, softmax
from workers.decoding.loop import decode, rule_of
from workers.decoding.model import Continuation
from workers.decoding.rules import Draws
from workers.decoding.uniforms import uniforms

PROMPTS = [(1, 2, 3), (4, 4, 1, 2), (0,), (5, 6, 5, 6, 5), (2, 2)]
STEPS = 16


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _top(p: np.ndarray, k: int) -> list[int]:
    return sorted(range(len(p)), key=lambda token: (-p[token], token))[:k]


def _greedy(model: TableModel, prompt: tuple[int, ...], steps: int) -> tuple[int, ...]:
    text = prompt
    for _ in range(steps):
        text = (*text, int(np.argmax(model.logits(text))))
    return text[len(prompt) :]


def _contrastive(model: TableModel, prompt: tuple[int, ...], steps: int, k: int, alpha: float) -> tuple[int, ...]:
    text = prompt
    for _ in range(steps):
        p = softmax(model.logits(text))
        before = [model.hidden(text[:end]) for end in range(1, len(text) + 1)]
        scores = {
            token: (1 - alpha) * p[token] - alpha * max(_cosine(model.hidden((*text, token)), h) for h in before)
            for token in _top(p, k)
        }
        text = (*text, max(scores, key=lambda token: scores[token]))
    return text[len(prompt) :]


def _fsd(model: TableModel, prompt: tuple[int, ...], steps: int, k: int, alpha: float, n: int) -> tuple[int, ...]:
    text = prompt
    for _ in range(steps):
        p = softmax(model.logits(text))
        states = [model.hidden(text[:end]) for end in range(1, len(text) + 1)]
        scores = {}
        for token in _top(p, k):
            penalty = 0.0
            for place in range(n - 1, len(text)):  # text[place] came next behind states[place - n + 1 : place]
                if text[place] == token and len(text) >= n - 1:
                    key, query = np.concatenate(states[place - n + 1 : place]), np.concatenate(states[-n + 1 :])
                    penalty = max(penalty, _cosine(key, query))
            scores[token] = (1 - alpha) * p[token] - alpha * min(penalty, 1.0)
        text = (*text, max(scores, key=lambda token: scores[token]))
    return text[len(prompt) :]


def _fsd_d(
    model: TableModel, prompt: tuple[int, ...], steps: int, k: int, alpha: float, n: int, beta: float
) -> tuple[int, ...]:
    text = prompt
    for _ in range(steps):
        p = softmax(model.logits(text))
        scores = {}
        for token in _top(p, k):
            remaining, penalty = 1.0, 0.0
            for order in range(n - 1, -1, -1):  # counted anew in the whole text
                context = text[len(text) - order :]
                followers = [
                    text[place + order] for place in range(len(text) - order) if text[place : place + order] == context
                ]
                count = followers.count(token)
                if len(text) < n - 1 or not count:
                    continue
                share = count / (len(followers) + 1) * beta if order else count / len(followers)
                penalty += remaining * share
                remaining *= 1 - beta
            scores[token] = (1 - alpha) * p[token] - alpha * penalty
        text = (*text, max(scores, key=lambda token: scores[token]))
    return text[len(prompt) :]


def _tokens(made: Sequence[Continuation]) -> list[tuple[int, ...]]:
    return [one.tokens for one in made]


@pytest.mark.parametrize("seed", range(3))
def test_greedy_takes_the_most_probable_token(seed: int) -> None:
    model = random_model(8, seed=seed)

    made = decode(model, PROMPTS, Greedy(), max_tokens=STEPS)

    assert _tokens(made) == [_greedy(model, prompt, STEPS) for prompt in PROMPTS]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("k", "alpha"), [(3, 0.6), (8, 0.2), (20, 1.0)])
def test_contrastive_search_follows_its_definition(seed: int, k: int, alpha: float) -> None:
    model = random_model(8, seed=seed)

    made = decode(model, PROMPTS, Contrastive(name="contrastive", k=k, alpha=alpha), max_tokens=STEPS)

    assert _tokens(made) == [_contrastive(model, prompt, STEPS, k, alpha) for prompt in PROMPTS]
    assert _tokens(made) != [_greedy(model, prompt, STEPS) for prompt in PROMPTS]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "alpha"), [(2, 0.45), (3, 0.45), (4, 0.8)])
def test_fsd_follows_its_definition(seed: int, n: int, alpha: float) -> None:
    model = random_model(8, seed=seed)

    made = decode(model, PROMPTS, Fsd(name="fsd", k=3, alpha=alpha, n=n), max_tokens=STEPS)

    assert _tokens(made) == [_fsd(model, prompt, STEPS, 3, alpha, n) for prompt in PROMPTS]
    assert _tokens(made) != [_greedy(model, prompt, STEPS) for prompt in PROMPTS]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "beta"), [(2, 0.9), (3, 0.9), (4, 0.5)])
def test_fsd_d_follows_its_definition(seed: int, n: int, beta: float) -> None:
    model = random_model(8, seed=seed)

    made = decode(model, PROMPTS, FsdD(name="fsd_d", k=3, alpha=0.65, n=n, beta=beta), max_tokens=STEPS)

    assert _tokens(made) == [_fsd_d(model, prompt, STEPS, 3, 0.65, n, beta) for prompt in PROMPTS]
    assert _tokens(made) != [_greedy(model, prompt, STEPS) for prompt in PROMPTS]


@pytest.mark.parametrize("decoder", [Contrastive(name="contrastive", alpha=0), Fsd(name="fsd", alpha=0)], ids=str)
def test_without_weight_a_penalty_leaves_greedy_search(decoder: Decoder) -> None:
    model = random_model(8)

    assert decode(model, PROMPTS, decoder, max_tokens=9) == decode(model, PROMPTS, Greedy(), max_tokens=9)


def _stays(decoder: Decoder, p: np.ndarray) -> list[int]:
    entropy = -float((p * np.log(p)).sum())
    order = _top(p, len(p))
    match decoder:
        case TopK():
            return order[: decoder.k]
        case TopP():
            return [token for rank, token in enumerate(order) if p[order[:rank]].sum() < decoder.p]
        case MinP():
            return [token for token in order if p[token] >= decoder.p * p.max()]
        case Eta():
            return [
                token for token in order if p[token] >= min(decoder.epsilon, decoder.epsilon**0.5 * math.exp(-entropy))
            ]
        case Typical():
            near = sorted(order, key=lambda token: abs(-math.log(p[token]) - entropy))
            return [token for rank, token in enumerate(near) if p[near[:rank]].sum() < decoder.mass]
    return order


@pytest.mark.parametrize(
    "decoder",
    [
        TemperatureSampling(name="temperature", temperature=0.7),
        TopP(name="top_p", p=0.7, temperature=1.2),
        TopK(name="top_k", k=4),
        MinP(name="min_p", p=0.2),
        Eta(name="eta", epsilon=0.1),
        Typical(name="typical", mass=0.6),
    ],
    ids=str,
)
def test_samplers_draw_from_what_their_definition_leaves(decoder: Decoder) -> None:
    model, keys, seed = random_model(9, seed=3), [10, 3, 7, 8, 2], 11

    made = decode(model, PROMPTS, decoder, max_tokens=STEPS, seed=seed, keys=keys)

    for prompt, key, tokens in zip(PROMPTS, keys, _tokens(made), strict=True):
        text = prompt
        for u in uniforms(seed, key, STEPS):
            p = softmax(model.logits(text) / getattr(decoder, "temperature", 1.0))
            left = np.zeros_like(p)
            stays = _stays(decoder, p)
            left[stays] = p[stays]
            text = (*text, int(np.argmax(np.cumsum(left) > u * left.sum())))
        assert text[len(prompt) :] == tokens


@pytest.mark.parametrize("decoder", defaults(), ids=lambda decoder: decoder.name)
def test_a_prompt_is_continued_the_same_alone_and_beside_others(decoder: Decoder) -> None:
    model = random_model(8, seed=5)

    together = decode(model, PROMPTS, decoder, max_tokens=12, seed=1, ends=frozenset({7}))

    alone = [
        decode(model, [prompt], decoder, max_tokens=12, seed=1, keys=[key], ends=frozenset({7}))[0]
        for key, prompt in enumerate(PROMPTS)
    ]
    assert together == alone


@pytest.mark.parametrize("decoder", defaults(), ids=lambda decoder: decoder.name)
def test_a_text_stops_at_its_end_and_at_the_limit(decoder: Decoder) -> None:
    model = random_model(8, seed=2)

    made = decode(model, PROMPTS, decoder, max_tokens=30, ends=frozenset({7, 6}))

    assert any(one.ended for one in made)
    for one in made:
        assert one.ended == (one.tokens[-1] in {6, 7})
        assert not {6, 7} & set(one.tokens[:-1])
        assert one.ended or len(one.tokens) == 30


@pytest.mark.parametrize("decoder", defaults(), ids=lambda decoder: decoder.name)
def test_a_caller_may_stop_between_two_tokens(decoder: Decoder) -> None:
    told: list[int] = []

    def tick(tokens: int) -> None:
        told.append(tokens)
        if len(told) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        decode(random_model(8), PROMPTS, decoder, max_tokens=100, tick=tick)

    assert told == [len(PROMPTS)] * 3


@pytest.mark.parametrize("name", ["beam", "diverse_beam", "contrastive"])
def test_what_looks_ahead_has_no_rule(name: str) -> None:
    decoder = next(one for one in defaults() if one.name == name)

    with pytest.raises(ValueError, match=name):
        rule_of(decoder, Draws(0, [0], 1))


def test_two_models_part_as_rarely_as_their_cumulative_distributions_allow() -> None:
    """What common random numbers are for: the share of differing tokens is what the intervals of [0, 1) leave, and far
    below that of independent draws."""
    one, far = random_model(8, seed=1), random_model(8, seed=2)
    near = TableModel(8, lambda text: one.logits(text) + 0.05 * far.logits(text))
    decoder = TemperatureSampling(name="temperature", temperature=1.0)
    prompts = [(a, b) for a in range(8) for b in range(8)] * 15
    keys = range(len(prompts))

    first, same, other = (_tokens(decode(m, prompts, decoder, max_tokens=1, keys=keys)) for m in (one, one, near))

    parting, independent = [], []
    for text in prompts:
        p, q = softmax(one.logits(text)), softmax(near.logits(text))
        high, low = np.minimum(np.cumsum(p), np.cumsum(q)), np.maximum(np.cumsum(p) - p, np.cumsum(q) - q)
        parting.append(1 - float(np.clip(high - low, 0, None).sum()))
        independent.append(1 - float(p @ q))
    share, expected = np.mean([a != b for a, b in zip(first, other, strict=True)]), np.mean(parting)
    assert first == same
    assert abs(share - expected) < 4 * math.sqrt(expected / len(prompts))
    assert 0 < share < np.mean(independent) / 5
