"""Beam searches beside a search that keeps texts in dictionaries, beside all texts there are, and, with groups, beside
cases by hand and what transformers made of a table when it had group beam search."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contracts.decoding import Beam, DiverseBeam, Greedy
from tests.support.decoding import TableModel, random_model, softmax
from workers.decoding.loop import decode

PROMPTS = [(1, 2, 3), (4, 4, 1, 2), (0,), (5, 6, 5, 6, 5), (2, 2)]
END = 7
Pool = dict[tuple[int, ...], tuple[float, float]]
GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "diverse_beam.json").read_text())


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


def test_groups_by_hand() -> None:
    """Three groups of one beam, λ = ln 2: a token that an earlier group took counts half, one that two took a quarter.

        after the prompt  A .5   B .3   C .2      after A  A .6   B .25  C .15      after B  A .7   B .2   C .1

    Token 1: group 1 takes A (.5). For group 2 A is worth .25: it takes B (.3). For group 3 A is .25, B .15, C .2: A.
    Token 2: group 1 takes A behind A (.6). Group 2, behind B: A .35 against B .2, so A. Group 3, behind A, when A was
    taken twice: .15 against B .25 and C .15, so B; halved once it would be A (.3).
    Token 3: group 1, behind A, A (.6). Group 2, behind A: A .3, B .25, so A. Group 3, behind B, when A was taken
    twice: .175 against B .2 and C .1, so B.
    The texts are AAA with .5 · .6 · .6 = .18, BAA with .3 · .7 · .6 = .126, ABB with .5 · .25 · .2 = .025.
    """
    after = {(): (0.5, 0.3, 0.2), (0,): (0.6, 0.25, 0.15), (1,): (0.7, 0.2, 0.1)}
    seen: list[tuple[int, ...]] = []

    def logits(text: tuple[int, ...]) -> np.ndarray:
        seen.append(text[1:])
        return np.log(after[text[1:][-1:]])

    decoder = DiverseBeam(name="diverse_beam", beams=3, groups=3, diversity=math.log(2))
    made = decode(TableModel(3, logits), [(2,)], decoder, max_tokens=4)

    def beams(length: int) -> list[tuple[int, ...]]:
        return [text for text in seen if len(text) == length][:3]

    assert beams(1) == [(0,), (1,), (0,)]
    assert beams(2) == [(0, 0), (1, 0), (0, 1)]
    assert beams(3) == [(0, 0, 0), (1, 0, 0), (0, 1, 1)]
    assert made[0].tokens == (0, 0, 0, 0)


def test_what_diversity_subtracted_does_not_decide_which_group_is_returned() -> None:
    """Two groups of one beam, λ = ln 2.

        after the prompt  A .5   B .3   C .2      after A  A .36  B .33  C .31      after B  A .7   B .2   C .1

    Group 1 writes AAA: .5 · .36 · .36 = .0648. Group 2 takes B (.3 against .25), then A, of which half is left (.35
    against .2), then, A being worth .18, B: .3 · .7 · .33 = .0693, with what was subtracted .03465. BAB is returned.
    """
    after = {(): (0.5, 0.3, 0.2), (0,): (0.36, 0.33, 0.31), (1,): (0.7, 0.2, 0.1)}
    model = TableModel(3, lambda text: np.log(after[text[1:][-1:]]))
    decoder = DiverseBeam(name="diverse_beam", beams=2, groups=2, diversity=math.log(2))

    assert decode(model, [(2,)], decoder, max_tokens=3)[0].tokens == (1, 0, 1)


def _table(text: tuple[int, ...]) -> np.ndarray:
    """Logits of nine tokens after the last two; the ninth, which transformers pads with, is as good as impossible."""
    a, b = text[-2:]
    rows = [(31 * a * a + 17 * b + 13 * c * c + 7 * a * b * c + 5 * b * c) % 29 / 10 + c / 100 for c in range(8)]
    return np.array([*rows, -30.0])


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['beams']}-{case['groups']}-{case['end']}")
def test_groups_are_those_of_transformers(case: dict[str, Any]) -> None:
    """The texts of all groups are what `generate(num_beams=…, num_beam_groups=…, diversity_penalty=…,
    num_return_sequences=num_beams)` of transformers 4.51.3 gave on this table, 8 tokens behind two; later releases have
    no group beam search. It ranks by what diversity left, so that the best is chosen here. Where texts may end, the
    length has no weight: there it does not count the token that ends a text."""
    beams, groups, penalty = case["beams"], case["groups"], case["length_penalty"]
    decoder = DiverseBeam(
        name="diverse_beam", beams=beams, groups=groups, diversity=case["diversity"], length_penalty=penalty
    )
    for told, theirs in case["texts"].items():
        prompt = tuple(int(token) for token in told.split())
        seen: list[tuple[int, ...]] = []

        def logits(text: tuple[int, ...], seen: list[tuple[int, ...]] = seen) -> np.ndarray:
            seen.append(text[2:])
            return _table(text)

        ends = frozenset() if case["end"] is None else frozenset({case["end"]})
        (made,) = decode(TableModel(9, logits), [prompt], decoder, max_tokens=8, ends=ends)

        def value(text: list[int], prompt: tuple[int, ...] = prompt) -> float:
            total = sum(np.log(softmax(_table((*prompt, *text[:at]))))[token] for at, token in enumerate(text))
            return float(total) / math.pow(len(text), penalty)

        assert list(made.tokens) == max(theirs, key=value), told
        last = {text for text in seen if len(text) == 7}
        beginnings = {tuple(text[:7]) for text in theirs if len(text) == 8}
        assert beginnings <= last, told
        if beams == groups and case["end"] is None:
            assert beginnings == last, told


def test_a_vocabulary_smaller_than_the_beams_is_no_trouble() -> None:
    made = decode(random_model(2, seed=1), [(0,)], Beam(name="beam", beams=8), max_tokens=5, ends=frozenset({1}))

    assert len(made) == 1
    assert 1 <= len(made[0].tokens) <= 5
