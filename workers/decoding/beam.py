"""Beam search, and diverse beam search: beams in groups that keep away from each other (Vijayakumar et al. 2018, arXiv
1610.02424, Hamming diversity).

Each step, each group of b beams looks at its 2b best continuations in order of score. One that ends the text is
finished if it is among the first b; the others fill the beams. A group ends when it has b finished texts and its best
beam could not, at its present length, be better than the worst of them. What the limit of tokens cuts counts as
finished.

A score is the sum of log-probabilities, in nats; group g subtracts λ for each time that earlier groups took the token
at this step, and keeps what it subtracted. Finished texts are ranked by score / length^penalty, the token that ends
counted, of every group together by the score without what was subtracted.

Names: R rows, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from app.contracts.decoding import Beam, DiverseBeam
from workers.decoding.candidates import best
from workers.decoding.model import Continuation, Model


@dataclass(frozen=True)
class _Text:
    """A continuation: `score` with, `log_p` without what diversity subtracted."""

    tokens: tuple[int, ...] = ()
    score: float = 0.0
    log_p: float = 0.0

    def and_then(self, token: int, score: float, log_p: float) -> _Text:
        return _Text((*self.tokens, token), score, log_p)


@dataclass
class _Group:
    """Beams that compete with each other: `rows` are the session's."""

    beams: list[_Text]
    rows: list[int]
    finished: list[tuple[float, _Text]] = field(default_factory=list)
    done: bool = False


def search(
    model: Model,
    prompts: Sequence[Sequence[int]],
    decoder: Beam | DiverseBeam,
    *,
    max_tokens: int,
    ends: frozenset[int],
    tick: Callable[[int], None],
) -> list[Continuation]:
    """The best continuation of each prompt; `tick` gets what each step adds, a prompt's beams as one token."""
    groups = decoder.groups if isinstance(decoder, DiverseBeam) else 1
    diversity = decoder.diversity if isinstance(decoder, DiverseBeam) else 0.0
    width, penalty = decoder.beams // groups, decoder.length_penalty
    session = model.open(prompts)
    searches = [[_Group([_Text()], [row]) for _ in range(groups)] for row in range(len(prompts))]
    for length in range(1, max_tokens + 1):
        log_p_RV = session.step.logits_RV.log_softmax(1)
        tokens: list[int] = []
        parents: list[int] = []
        going = 0
        for groups_of_prompt in searches:
            going += any(not group.done for group in groups_of_prompt)
            taken: Counter[int] = Counter()
            for group in groups_of_prompt:
                if group.done:
                    continue
                found = _continuations(log_p_RV[group.rows], group.beams, taken, diversity, 2 * width)
                beams, origins = _advance(group, found, width, length, penalty, ends)
                taken.update(text.tokens[-1] for text in beams)
                group.beams = beams
                group.done = length == max_tokens or _settled(group, width, length, penalty)
                if length == max_tokens:
                    group.finished += [(_ranked(text.score, length, penalty), text) for text in beams]
                if not group.done:
                    group.rows = list(range(len(tokens), len(tokens) + len(beams)))
                    tokens += [text.tokens[-1] for text in beams]
                    parents += origins
        tick(going)
        if not tokens:
            break
        session.next(tokens, parents)
    return [_best(groups_of_prompt, penalty, ends) for groups_of_prompt in searches]


def _continuations(
    log_p_RV: torch.Tensor, beams: Sequence[_Text], taken: Counter[int], diversity: float, k: int
) -> list[tuple[int, _Text]]:
    """The best k of all beams' continuations, each with the beam it comes from."""
    score_RV = log_p_RV
    if taken and diversity:
        score_RV = log_p_RV.clone()
        for token, times in taken.items():
            score_RV[:, token] -= diversity * times
    value_RK, ids_RK = best(score_RV, k)
    log_p_RK = log_p_RV.gather(1, ids_RK)
    found = [
        (-(beam.score + value), origin, token, beam.log_p + log_p)
        for origin, (beam, values, ids, log_ps) in enumerate(
            zip(beams, value_RK.tolist(), ids_RK.tolist(), log_p_RK.tolist(), strict=True)
        )
        for value, token, log_p in zip(values, ids, log_ps, strict=True)
    ]
    return [(origin, beams[origin].and_then(token, -minus, log_p)) for minus, origin, token, log_p in sorted(found)[:k]]


def _advance(
    group: _Group, found: Sequence[tuple[int, _Text]], width: int, length: int, penalty: float, ends: frozenset[int]
) -> tuple[list[_Text], list[int]]:
    """Finished texts go to the group's list, the best `width` others are its beams; with the rows they come from."""
    beams: list[_Text] = []
    origins: list[int] = []
    for rank, (origin, text) in enumerate(found):
        if text.tokens[-1] in ends:
            if rank < width:
                group.finished.append((_ranked(text.score, length, penalty), text))
        elif len(beams) < width:
            beams.append(text)
            origins.append(group.rows[origin])
    group.finished = sorted(group.finished, key=lambda one: -one[0])[:width]
    return beams, origins


def _settled(group: _Group, width: int, length: int, penalty: float) -> bool:
    """Whether no beam can still be worth it."""
    if not group.beams:
        return True
    if len(group.finished) < width:
        return False
    return _ranked(group.beams[0].score, length, penalty) <= group.finished[-1][0]


def _ranked(score: float, length: int, penalty: float) -> float:
    return score / math.pow(length, penalty)


def _best(groups: Sequence[_Group], penalty: float, ends: frozenset[int]) -> Continuation:
    texts = [text for group in groups for _, text in group.finished]
    text = max(texts, key=lambda one: _ranked(one.log_p, len(one.tokens), penalty))
    return Continuation(text.tokens, text.tokens[-1] in ends)
