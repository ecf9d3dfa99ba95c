"""Beam searches beside a search that keeps texts in dictionaries, and beside all texts there are."""

import itertools
import math

import numpy as np
import pytest

from app.contracts.decoding import Beam, DiverseBeam, Greedy
from tests.support.decoding import TableModel, random_model, softmax
from workers.decoding.loop import decode

PROMPTS = [(1, 2, 3), (4, 4, 1, 2), (0,), (5, 6, 5, 6, 5), (2, 2)]
END = 7
Pool = dict[tuple[int, ...], tuple[float, float]]


def _log_p(model: TableModel, text: tuple[int, ...]) -> np.ndarray:
    return np.log(softmax(model.logits(text)))


def _diverse(
    model: TableModel, prompt: tuple[int, ...], beams: int, groups: int, diversity: float, steps: int, penalty: float
) -> tuple[int, ...]:
    """Groups in dictionaries from text to (score, log-probability)."""
    width = beams // groups
    open_: list[Pool] = [{(): (0.0, 0.0)} for _ in range(groups)]
    closed: list[Pool] = [{} for _ in range(groups)]
    stopped = [False] * groups
    for length in range(1, steps + 1):
        taken: list[int] = []
        for g in range(groups):
            if stopped[g]:
                continue
            grown: Pool = {}
            for text, (score, total) in open_[g].items():
                log_p = _log_p(model, prompt + text)
                for token in range(model.vocabulary):
                    grown[(*text, token)] = (
                        score + log_p[token] - diversity * taken.count(token),
                        total + log_p[token],
                    )
            order = sorted(grown, key=lambda text: -grown[text][0])[: 2 * width]
            open_[g] = {}
            for rank, text in enumerate(order):
                if text[-1] == END:
                    if rank < width:
                        closed[g][text] = grown[text]
                elif len(open_[g]) < width:
                    open_[g][text] = grown[text]
            taken += [text[-1] for text in open_[g]]

            def value(text: tuple[int, ...], pool: Pool = closed[g]) -> float:
                return pool[text][0] / math.pow(len(text), penalty)

            closed[g] = {text: closed[g][text] for text in sorted(closed[g], key=value, reverse=True)[:width]}
            best_open = max((score for score, _ in open_[g].values()), default=-math.inf)
            if len(closed[g]) == width and best_open / length**penalty <= min(map(value, closed[g])):
                stopped[g] = True
            if length == steps:
                closed[g] |= open_[g]
    everything = {text: total for pool in closed for text, (_, total) in pool.items()}
    return max(everything, key=lambda text: everything[text] / len(text) ** penalty)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("beams", "penalty"), [(2, 1.0), (4, 1.0), (5, 0.0), (3, 2.0)])
def test_beam_search_follows_its_definition(seed: int, beams: int, penalty: float) -> None:
    model = random_model(8, seed=seed)

    made = decode(
        model, PROMPTS, Beam(name="beam", beams=beams, length_penalty=penalty), max_tokens=12, ends=frozenset({END})
    )

    expected = [_diverse(model, prompt, beams, 1, 0.0, 12, penalty) for prompt in PROMPTS]
    assert [one.tokens for one in made] == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("beams", "groups", "diversity"), [(4, 4, 0.5), (4, 2, 0.5), (6, 3, 2.0)])
def test_diverse_beam_search_follows_its_definition(seed: int, beams: int, groups: int, diversity: float) -> None:
    model = random_model(8, seed=seed)
    decoder = DiverseBeam(name="diverse_beam", beams=beams, groups=groups, diversity=diversity)

    made = decode(model, PROMPTS, decoder, max_tokens=12, ends=frozenset({END}))

    expected = [_diverse(model, prompt, beams, groups, diversity, 12, 1.0) for prompt in PROMPTS]
    assert [one.tokens for one in made] == expected


def test_enough_beams_find_the_most_probable_text_of_all() -> None:
    model = random_model(3, seed=4)
    made = decode(model, [(0,), (1, 2)], Beam(name="beam", beams=9, length_penalty=0), max_tokens=3)

    for prompt, one in zip([(0,), (1, 2)], made, strict=True):
        scores = {
            text: sum(_log_p(model, prompt + text[:at])[token] for at, token in enumerate(text))
            for text in itertools.product(range(3), repeat=3)
        }
        assert one.tokens == max(scores, key=lambda text: scores[text])


def test_groups_without_diversity_are_greedy_and_with_it_are_not_all() -> None:
    """Four groups of one beam each: without a penalty each is greedy search; a large one drives the others away, and
    the most probable of what they find is no worse than greedy's."""
    model = random_model(8, seed=0)
    greedy = [one.tokens for one in decode(model, PROMPTS, Greedy(), max_tokens=6)]

    alike = decode(model, PROMPTS, DiverseBeam(name="diverse_beam", diversity=0), max_tokens=6)
    apart = decode(model, PROMPTS, DiverseBeam(name="diverse_beam", diversity=3), max_tokens=6)

    def total(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> float:
        return float(sum(_log_p(model, prompt + tokens[:at])[token] for at, token in enumerate(tokens)))

    assert [one.tokens for one in alike] == greedy
    gains = [total(p, one.tokens) - total(p, g) for p, one, g in zip(PROMPTS, apart, greedy, strict=True)]
    assert min(gains) >= -1e-5
    assert max(gains) > 0


def test_a_vocabulary_smaller_than_the_beams_is_no_trouble() -> None:
    made = decode(random_model(2, seed=1), [(0,)], Beam(name="beam", beams=8), max_tokens=5, ends=frozenset({1}))

    assert len(made) == 1
    assert 1 <= len(made[0].tokens) <= 5
