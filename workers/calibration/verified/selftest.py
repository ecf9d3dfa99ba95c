"""Whether verified decoding follows the reference on this machine, measured before it is offered.

Three questions, each asked of the same rounds that requests go through: does a few thousand draws of one token after a
drafted block's start fit the reference's exact probabilities; do draws of three tokens from the three most probable
fit the exact probabilities of all 27 continuations; does greedy decoding take the reference's most probable token each
time. Fits are judged by Pearson's chi-square.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from workers.calibration.verified.truncation import Sampling
from workers.calibration.verified.verifier import Stream, Verifier
from workers.engine.launch import never

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

# A right build is refused once in so many times, a wrong one practically always.
P_LEAST: Final = 1e-4
DRAWS: Final = 2000
EXPECTED_LEAST: Final = 5.0  # of a cell; rarer ones are judged together
GREEDY_TOKENS: Final = 32
_OPEN: Final = Sampling(temperature=1.0)
_NARROW: Final = Sampling(temperature=0.8, top_k=3)
_DEPTH: Final = 3
_GREEDY: Final = Sampling(temperature=0.0)


@dataclass(frozen=True)
class SelfTest:
    """What was measured. `passed`: it may be offered; `reason` says why not, or what was found."""

    passed: bool
    reason: str
    p_token: float
    p_sequence: float
    greedy_equal: int
    greedy_total: int
    draws: int
    acceptance_rate: float


def run(
    verifier: Verifier,
    prompts: Sequence[Sequence[int]],
    *,
    streams: int,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    check_cancelled: Callable[[], None] = never,
) -> SelfTest:
    """Measures. `prompts`: short ones, the first is drawn from; `streams`: how many run at once.

    Raises what the engines raise.
    """
    prompt = list(prompts[0])
    total = 2 * draws + len(prompts)
    open_streams = _drawn(
        verifier, prompt, _OPEN, 2, draws, streams, seed, lambda done: progress(done, total), check_cancelled
    )
    exact_V = verifier.reference([prompt], [1], [_OPEN], check_cancelled)[0][0]
    p_token = fit(Counter(stream.output[0] for stream in open_streams), dict(enumerate(exact_V)))
    narrow = _drawn(
        verifier,
        prompt,
        _NARROW,
        _DEPTH,
        draws,
        streams,
        seed + 1,
        lambda done: progress(draws + done, total),
        check_cancelled,
    )
    p_sequence = fit(
        Counter(tuple(stream.output) for stream in narrow), _continuations(verifier, prompt, check_cancelled)
    )
    equal, judged = _greedy(verifier, prompts, check_cancelled)
    progress(total, total)
    drafted = sum(stream.drafted for stream in open_streams)
    rate = sum(stream.overlap for stream in open_streams) / drafted if drafted else 0.0
    faults = [
        f"{name} of {draws} draws do not follow the reference (chi-square p = {p:.2g}, {P_LEAST:g} is needed)"
        for name, p in (("the first tokens", p_token), (f"sequences of {_DEPTH} tokens", p_sequence))
        if not p >= P_LEAST
    ]
    if equal != judged:
        faults.append(f"greedy decoding took another token than the reference's at {judged - equal} of {judged}")
    found = (
        f"self-test passed: chi-square p = {p_token:.2g} and {p_sequence:.2g} over {draws} draws each, greedy equal at "
        f"{equal} of {judged} tokens"
    )
    return SelfTest(not faults, "; ".join(faults) or found, p_token, p_sequence, equal, judged, draws, rate)


def fit(counts: Counter[Any], exact: dict[Any, float]) -> float:
    """p-value of Pearson's chi-square of the counts against exact probabilities; 0 where what cannot happen happened.

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


def _drawn(
    verifier: Verifier,
    prompt: list[int],
    sampling: Sampling,
    tokens: int,
    draws: int,
    streams: int,
    seed: int,
    progress: Callable[[int], None],
    check_cancelled: Callable[[], None],
) -> list[Stream]:
    done: list[Stream] = []
    seeds = np.random.SeedSequence(seed).spawn(draws)
    for begin in range(0, draws, streams):
        part = [
            Stream(list(prompt), sampling, tokens, generator=np.random.default_rng(one))
            for one in seeds[begin : begin + streams]
        ]
        _finish(verifier, part, check_cancelled)
        done += part
        progress(len(done))
    return done


def _finish(verifier: Verifier, streams: Sequence[Stream], check_cancelled: Callable[[], None]) -> None:
    while active := [stream for stream in streams if stream.finish is None]:
        check_cancelled()
        verifier.round(active, check_cancelled)
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
            [prompt + list(prefix) for prefix in prefixes],
            [1] * len(prefixes),
            [_NARROW] * len(prefixes),
            check_cancelled,
        )
        found = dict(
            itertools.chain.from_iterable(
                (((*prefix, int(token)), found[prefix] * float(p_1V[0, token])) for token in np.flatnonzero(p_1V[0]))
                for prefix, p_1V in zip(prefixes, rows, strict=True)
            )
        )
    return found


def _greedy(
    verifier: Verifier, prompts: Sequence[Sequence[int]], check_cancelled: Callable[[], None]
) -> tuple[int, int]:
    """At how many tokens of greedy answers the reference ranks them first, given the whole answers in one pass."""
    streams = [Stream(list(prompt), _GREEDY, GREEDY_TOKENS) for prompt in prompts]
    _finish(verifier, streams, check_cancelled)
    rows = verifier.reference(
        [stream.prompt + stream.output[:-1] for stream in streams],
        [len(stream.output) for stream in streams],
        [_GREEDY] * len(streams),
        check_cancelled,
    )
    equal = sum(
        int((p_TV.argmax(1) == np.array(stream.output)).sum()) for stream, p_TV in zip(streams, rows, strict=True)
    )
    return equal, sum(len(stream.output) for stream in streams)
