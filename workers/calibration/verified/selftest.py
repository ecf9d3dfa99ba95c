"""Whether verified decoding follows the reference on this machine, measured before it is offered.

Three questions, asked of the same rounds that requests go through. Do a few thousand draws of a block's first token fit
the reference's exact probabilities? Do draws of three tokens from the three most probable fit the exact probabilities
of all 27 continuations? Does greedy decoding take the reference's most probable token each time? Fits are judged by
Pearson's chi-square.

A candidate that is close to the reference would hide mistakes. So it drafts at another temperature than the answers
have, which must not matter, and at the start of a prompt where mistakes show best.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ncx2

from workers.calibration.verified.truncation import Sampling
from workers.calibration.verified.verifier import Stream, Verifier
from workers.engine.launch import never

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

# A right build is refused by either fit once in so many times.
P_LEAST: Final = 1e-4
DRAWS: Final = 2000
EXPECTED_LEAST: Final = 5.0  # of a cell; rarer ones are judged together
GREEDY_TOKENS: Final = 32
# Tokens whose log-probabilities differ by less, in nats, are the same to bf16: either may come first.
TIE_NATS: Final = 0.05
_OPEN: Final = Sampling(temperature=1.0)
_NARROW: Final = Sampling(temperature=0.8, top_k=3)
_DEPTH: Final = 3
_STARTS: Final = (2, 3, 4, 5)  # tokens of a prompt: each draw reads them twice
# Of the draft, times the answer's: one of these.
_TEMPERATURES: Final = (0.5, 0.7, 1.0, 1.5, 2.0)
_GREEDY: Final = Sampling(temperature=0.0)
# scipy's noncentral chi-square gives up somewhere beyond; the power is 1 long before.
_LARGEST_NONCENTRALITY: Final = 1e4


@dataclass(frozen=True)
class SelfTest:
    """What was measured. `passed`: it may be offered; `reason` says why not, or what was found.

    `power` is the least probability that the first fit would have refused one of the `mistakes`; the same `seed` gives
    the same draws again.
    """

    passed: bool
    reason: str
    p_token: float
    p_sequence: float
    greedy_equal: int
    greedy_total: int
    draws: int
    power: float
    seed: int


def run(
    verifier: Verifier,
    prompts: Sequence[Sequence[int]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    check_cancelled: Callable[[], None] = never,
) -> SelfTest:
    """Measures. `prompts`: short ones, of which the start that distinguishes the models best is drawn from.

    `draws`: of the first question; the second takes half as many. `seed`: of all draws; anyone who offers what passes
    takes a new one each time, or what luck decided once is decided for ever.

    Raises what the engines raise, and ValueError if the reference's distribution is not finite.
    """
    sequences = draws // 2
    total = draws + sequences + len(prompts)
    prompt, temperature, power = _telling(verifier, prompts, draws, check_cancelled)
    one, two = np.random.SeedSequence(seed).spawn(2)

    def drawn(sampling: Sampling, tokens: int, seeds: np.random.SeedSequence, count: int, before: int) -> Counter[Any]:
        """Answers of so many tokens, all of which are drafted."""
        streams = [_drafted(prompt, sampling, tokens, temperature, part) for part in seeds.spawn(count)]
        _finish(verifier, streams, lambda done: progress(before + done, total), check_cancelled)
        return Counter(tuple(stream.output) for stream in streams)

    (exact_V,) = verifier.reference([prompt], [_OPEN], check_cancelled)
    p_token = fit(drawn(_OPEN, 1, one, draws, 0), {(token,): p for token, p in enumerate(exact_V)})
    continuations = _continuations(verifier, prompt, check_cancelled)
    p_sequence = fit(drawn(_NARROW, _DEPTH, two, sequences, draws), continuations)
    equal, judged = _greedy(verifier, prompts, check_cancelled)
    progress(total, total)
    faults = [
        f"{name} of {count} draws do not follow the reference (chi-square p = {p:.2g}, {P_LEAST:g} is needed)"
        for name, count, p in (
            ("the first tokens", draws, p_token),
            (f"sequences of {_DEPTH} tokens", sequences, p_sequence),
        )
        if not p >= P_LEAST
    ]
    if equal != judged:
        faults.append(f"greedy decoding took another token than the reference's at {judged - equal} of {judged}")
    found = (
        f"self-test passed: chi-square p = {p_token:.2g} over {draws} draws of a token and {p_sequence:.2g} over "
        f"{sequences} of {_DEPTH}, greedy equal at {equal} of {judged} tokens, power {power:.3g}"
    )
    return SelfTest(not faults, "; ".join(faults) or found, p_token, p_sequence, equal, judged, draws, power, seed)


def fit(counts: Counter[Any], exact: dict[Any, float]) -> float:
    """p-value of Pearson's chi-square of the counts against exact probabilities; 0 if what cannot happen happened.

    Cells with an expected count below 5 are taken together.
    """
    total = counts.total()
    if any(exact.get(cell, 0.0) <= 0 for cell in counts):
        return 0.0
    large = {cell for cell, p in exact.items() if p * total >= EXPECTED_LEAST}
    observed = [float(counts[cell]) for cell in large]
    expected = [exact[cell] * total for cell in large]
    rest = max(0.0, 1.0 - sum(exact[cell] for cell in large)) * total
    if rest >= EXPECTED_LEAST:
        observed.append(float(sum(count for cell, count in counts.items() if cell not in large)))
        expected.append(rest)
    if len(expected) < 2:
        return 1.0
    statistic = float(sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True)))
    return float(chi2.sf(statistic, len(expected) - 1))


def power_against(noncentrality: float, freedom: int, *, least: float = P_LEAST) -> float:
    """Probability that `fit` gives a p-value below `least` where the draws follow another distribution.

    `noncentrality` and degrees of freedom are those of `distance`.
    """
    if freedom < 1:
        return 0.0
    if noncentrality > _LARGEST_NONCENTRALITY:
        return 1.0
    return float(ncx2.sf(chi2.isf(least, freedom), freedom, noncentrality))


def distance(q_V: Array, p_V: Array, draws: int) -> tuple[float, int]:
    """Noncentrality and degrees of freedom of the chi-square that `fit` makes against p of so many draws from q.

    The former is the number of draws times Σ (q − p)² / p over the cells that `fit` judges.
    """
    large_V = p_V * draws >= EXPECTED_LEAST
    p, q = p_V[large_V], q_V[large_V]
    rest = max(0.0, 1.0 - float(p.sum()))
    if rest * draws >= EXPECTED_LEAST:
        p, q = np.append(p, rest), np.append(q, max(0.0, 1.0 - float(q.sum())))
    return draws * float(((q - p) ** 2 / p).sum()), len(p) - 1


def mistakes(q_V: Array, p_V: Array) -> list[Array]:
    """What the first token would follow instead of p, by the mistakes that are made most easily.

    First: the draft is taken as it is. Second: a rejected token is replaced by a draw from p, not from what p has over
    q. Third: q is not what the draft was drawn from, here another temperature.
    """
    kept_V = np.minimum(p_V, q_V)
    flat_V = np.sqrt(q_V) / np.sqrt(q_V).sum()
    falsely_V = q_V * np.minimum(1.0, p_V / np.maximum(flat_V, np.finfo(float).tiny))
    rest_V = np.maximum(p_V - flat_V, 0.0)
    rest_V = rest_V / rest_V.sum() if rest_V.any() else p_V
    return [q_V, kept_V + (1 - kept_V.sum()) * p_V, falsely_V + (1 - falsely_V.sum()) * rest_V]


def _telling(
    verifier: Verifier,
    prompts: Sequence[Sequence[int]],
    draws: int,
    check_cancelled: Callable[[], None],
) -> tuple[list[int], float, float]:
    """Where the mistake that is hardest to see is seen best: start of a prompt, draft's temperature, and the power."""
    starts = [list(prompt[:length]) for prompt in prompts for length in _STARTS]
    exact = verifier.reference(starts, [_OPEN] * len(starts), check_cancelled)
    found: list[tuple[float, float, list[int], float]] = []
    for temperature in _TEMPERATURES:
        streams = [_drafted(start, _OPEN, 1, temperature) for start in starts]
        while waiting := [stream for stream in streams if not stream.draft]:
            verifier.round(waiting, check_cancelled)
        for stream, p_V in zip(streams, exact, strict=True):
            q_V = stream.draft[0][1]
            if np.isfinite(q_V).all() and np.isfinite(p_V).all():
                hardest = min(distance(wrong_V, p_V, draws) for wrong_V in mistakes(q_V, p_V))
                found.append((power_against(*hardest), hardest[0], stream.prompt, temperature))
    if not found:
        raise ValueError("the distributions are not finite")
    power, _, start, temperature = max(found)
    return start, temperature, power


def _drafted(
    prompt: Sequence[int], sampling: Sampling, tokens: int, times: float, seed: np.random.SeedSequence | None = None
) -> Stream:
    """An answer whose first token is drafted too, at another temperature than its own."""
    heated = replace(sampling, temperature=sampling.temperature * times)
    generator = np.random.default_rng(seed)
    return Stream(list(prompt), sampling, tokens, generator=generator, heated=heated, drafted_first=True)


def _finish(
    verifier: Verifier,
    streams: Sequence[Stream],
    progress: Callable[[int], None],
    check_cancelled: Callable[[], None],
) -> None:
    """Rounds until all have ended."""
    while waiting := [stream for stream in streams if stream.finish is None]:
        progress(len(streams) - len(waiting))
        verifier.round(waiting, check_cancelled)
    if any(stream.finish == "error" for stream in streams):
        raise ValueError("the reference's distribution is not finite")


def _continuations(
    verifier: Verifier, prompt: list[int], check_cancelled: Callable[[], None]
) -> dict[tuple[int, ...], float]:
    """Exact probability of each continuation, from windows that hold its prefix and nothing else."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(_DEPTH):
        prefixes = list(found)
        rows = verifier.reference(
            [prompt + list(prefix) for prefix in prefixes], [_NARROW] * len(prefixes), check_cancelled
        )
        found = dict(
            itertools.chain.from_iterable(
                (((*prefix, int(token)), found[prefix] * float(p_V[token])) for token in np.flatnonzero(p_V))
                for prefix, p_V in zip(prefixes, rows, strict=True)
            )
        )
    return found


def _greedy(
    verifier: Verifier, prompts: Sequence[Sequence[int]], check_cancelled: Callable[[], None]
) -> tuple[int, int]:
    """At how many tokens of greedy answers the reference ranks them first, given what is before them in one pass."""
    answers = [Stream(list(prompt), _GREEDY, GREEDY_TOKENS) for prompt in prompts]
    _finish(verifier, answers, lambda done: None, check_cancelled)
    taken = [
        (answer.prompt + answer.output[:at], answer.output[at]) for answer in answers for at in range(GREEDY_TOKENS)
    ]
    exact = verifier.reference([prefix for prefix, _ in taken], [_OPEN] * len(taken), check_cancelled)
    equal = sum(bool(p_V[token] >= p_V.max() * np.exp(-TIE_NATS)) for (_, token), p_V in zip(taken, exact, strict=True))
    return equal, len(taken)
