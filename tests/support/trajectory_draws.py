"""Drawn texts of two models: where they part, KL along both, what they look like; and plain statistics of them.

No model is behind them. Everything that a cell of a report says is computed from the same draws, so that its numbers
agree with each other as a real one's do. Names: N prompts, T tokens of all texts of a kind, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tests.support.reports import Floats, Tokens, _mean, draw

Json = dict[str, Any]
Texts = Sequence[Floats]
EDITS = (16, 32, 64, 128)


def base_tokens(damage: float, prompts: int, most: int) -> Tokens:
    """A candidate on the reference's own texts: the same texts for every candidate, at most `most` tokens each."""
    drawn = draw(mean=max(damage, 1e-12), documents=prompts, tokens=most, seed=2)
    kept = drawn.position < most
    cut = {one.name: getattr(drawn, one.name)[kept] for one in fields(drawn) if one.name != "names"}
    values = replace(drawn, **cut)
    values.kl = values.kl * (damage / float(values.kl.mean()))
    if damage:
        return values
    nothing, all_ = np.zeros(values.kl.size), np.ones(values.kl.size)
    return replace(
        values,
        reverse_kl=nothing,
        js=nothing,
        tv=nothing,
        delta_p=nothing,
        logp_candidate=values.logp_reference,
        top1=all_,
        overlap5=all_,
        overlap10=all_,
        rank=all_,
    )


@dataclass(frozen=True)
class Written:
    """One decoder of one candidate. By prompt: `first` different token (None: the same text), values at each token."""

    first: Sequence[int | None]
    kl: tuple[Texts, Texts]  # on the reference's text, on the candidate's
    entropy: tuple[Texts, Texts]
    surprise: tuple[Texts, Texts]  # under the writer
    reference_surprise: tuple[Texts, Texts]
    differ: Texts  # up to the longer of both
    step: Texts  # top-1 disagreement on the reference's text
    distinct: tuple[Floats, Floats]
    repetition: dict[int, tuple[Floats, Floats]]
    most: int


def write(tokens: Tokens, damage: float, most: int, *, scale: float, greedy: bool, seed: tuple[int, int]) -> Written:
    """Draws the texts. KL on the reference's text is `scale` times that of `tokens`. Up to the first different token
    both texts are the same, and so is everything along them; by `greedy` it is the first top-1 disagreement. `seed` is
    the decoder's, which decides the reference's texts, and the candidate's."""
    reference, rng = np.random.default_rng(seed[0]), np.random.default_rng(seed)
    prompts = range(int(tokens.document.max()) + 1)
    kl = [scale * tokens.kl[tokens.document == one] for one in prompts]
    step = [1.0 - tokens.top1[tokens.document == one] for one in prompts]
    step = step if greedy else [rng.permutation(one) for one in step]
    lengths = [len(one) for one in kl]
    count = len(kl)
    chance = min(0.5, 0.25 * scale * damage)
    first: list[int | None] = []
    for length, wrong in zip(lengths, step, strict=True):
        if greedy:
            at = int(np.argmax(wrong)) + 1 if wrong.any() else most + 1
        else:
            at = int(rng.geometric(chance)) if damage else most + 1
        first.append(at if at <= length else None)
    ours: dict[str, list[Floats]] = {
        "entropy": [reference.gamma(4.0, 0.5, length) for length in lengths],
        "surprise": [reference.exponential(1.2, length) for length in lengths],
    }
    theirs: dict[str, list[Floats]] = {"kl": [], "entropy": [], "surprise": [], "reference": []}
    differ = []
    for number, (length, at) in enumerate(zip(lengths, first, strict=True)):
        shared = length if at is None else at
        own = length if at is None else max(at, min(most, length + int(rng.integers(-6, 4))))
        rest = own - shared
        grown = 1 + 0.25 * max(0.0, damage - 0.3) * np.sqrt(np.arange(rest))
        after = rng.permutation(np.resize(kl[number], rest)) * grown * rng.lognormal(-0.15, 0.55)
        theirs["kl"].append(np.concatenate([kl[number][:shared], after]))
        for name, drawn in (("entropy", rng.gamma(4.0, 0.46, rest)), ("surprise", rng.exponential(1.1, rest))):
            # The first differing token is another one, though what stands before it is the same.
            known = shared if name == "entropy" or at is None else shared - 1
            full = np.concatenate([ours[name][number][:known], drawn, np.full(own - known - rest, 1.0)])
            theirs[name].append(full)
        theirs["reference"].append(
            theirs["surprise"][number] + np.where(np.arange(own) < shared - 1, 0.0, 0.35 * bool(rest))
        )
        apart = np.zeros(max(length, own))
        if at is not None:
            apart[at - 1 :] = rng.random(apart.size - at + 1) < 0.92
            apart[at - 1] = 1.0
            apart[min(length, own) :] = 1.0
        differ.append(apart)
    parted = np.asarray([at is not None for at in first], dtype=np.float64)
    distinct = reference.beta(30, 18, count)
    repetition = {n: reference.beta(4 / n, 16, count) for n in (1, 2, 3, 4)}
    return Written(
        first=first,
        kl=(kl, theirs["kl"]),
        entropy=(ours["entropy"], theirs["entropy"]),
        surprise=(ours["surprise"], theirs["surprise"]),
        reference_surprise=(ours["surprise"], theirs["reference"]),
        differ=differ,
        step=step,
        distinct=(distinct, np.clip(distinct - parted * rng.normal(0.02, 0.03, count), 0.05, 1.0)),
        repetition={
            n: (one, np.clip(one + parted * rng.normal(0.03 / n, 0.03, count), 0.0, 1.0))
            for n, one in repetition.items()
        },
        most=most,
    )


# --- plain statistics


def mean_of(values: Floats) -> Json:
    """One value a prompt."""
    return _mean(np.asarray(values, dtype=np.float64), np.arange(len(values)))


def along(texts: Texts, first: int = 1, last: int | None = None) -> Json:
    """Over the tokens `first` to `last` of all texts, clustered by prompt."""
    parts = [text[first - 1 : last] for text in texts]
    prompts = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    joined = np.concatenate(parts)
    return _mean(joined, prompts) if joined.size else {"mean": None, "ci": None, "clusters": None}


def share_of(which: Sequence[bool]) -> Json:
    """Of prompts, with the exact interval."""
    return {"mean": float(np.mean(which)), "ci": _exact(int(np.sum(which)), len(which)), "clusters": "documents"}


@cache
def _limits(successes: int, trials: int) -> tuple[float, float]:
    found = stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def _exact(successes: int, trials: int) -> list[float]:
    return list(_limits(successes, trials))


def ratio_of(above: Floats, below: Floats) -> Json:
    """Of two sums over the same prompts, by linearization."""
    if not below.sum():
        return {"value": None, "ci": None, "above_one": None}
    value, count = float(above.sum() / below.sum()), len(below)
    error = float(np.sqrt(((above - value * below) ** 2).sum() * count / (count - 1)) / below.sum())
    low, high = max(0.0, value - 2.04 * error), value + 2.04 * error
    return {"value": value, "ci": [low, high], "above_one": low > 1}


def survival_of(written: Written) -> list[Json]:
    """Share of prompts whose texts are still the same."""
    count = len(written.first)
    points = []
    for tokens in range(written.most + 1):
        same = sum(at is None or at > tokens for at in written.first)
        points.append({"tokens": tokens, "share": same / count, "ci": _exact(same, count) if tokens else [1.0, 1.0]})
    return points


def first_divergence(written: Written, curve: Sequence[Json]) -> Json:
    """Where the texts part, read from the curve and from the prompts."""
    lengths = [len(one) for one in written.kl[0]]
    shared = [float(length if at is None else at - 1) for at, length in zip(written.first, lengths, strict=True)]

    def crossing(value: Callable[[Json], float]) -> int | None:
        return next((point["tokens"] for point in curve if value(point) <= 0.5), None)

    risks = [
        np.append(np.zeros(int(one)), [1.0] * (at is not None)) for one, at in zip(shared, written.first, strict=True)
    ]
    return {
        "diverged": share_of([at is not None for at in written.first]),
        "median": crossing(lambda point: point["share"]),
        "median_ci": [crossing(lambda point: point["ci"][0]), crossing(lambda point: point["ci"][1])],
        "shared_prefix": mean_of(np.asarray(shared)),
        "hazard": along(risks),
    }


def amplification_of(written: Written) -> Json:
    """Both factors over the positions that both texts have."""
    both = [min(len(one), len(other)) for one, other in zip(*written.kl, strict=True)]

    def sums(texts: Texts) -> Floats:
        return np.asarray([float(text[:length].sum()) for text, length in zip(texts, both, strict=True)])

    def cut(texts: Texts) -> list[Floats]:
        return [text[:length] for text, length in zip(texts, both, strict=True)]

    kl = ratio_of(sums(written.kl[1]), sums(written.kl[0]))
    above, below = (kl["ci"][0] > 1, kl["ci"][1] < 1) if kl["ci"] else (False, False)
    none = kl["value"] is None
    return {
        "kl": kl,
        "kl_reference_text": along(cut(written.kl[0])),
        "kl_candidate_text": along(cut(written.kl[1])),
        "tokens": ratio_of(sums(written.differ), sums(written.step)),
        "one_step": along(cut(written.step)),
        "free": along(cut(written.differ)),
        "conclusion": "no_damage" if none else "amplifies" if above else "damps" if below else "open",
    }


def text_of(written: Written, side: int) -> Json:
    """What one model's texts look like: side 0 the reference's, 1 the candidate's."""
    lengths = np.asarray([len(one) for one in written.kl[side]])
    return {
        "length": mean_of(lengths),
        "ended": share_of([bool(length < written.most) for length in lengths]),
        "repetition": {str(n): mean_of(both[side]) for n, both in written.repetition.items()},
        "distinct": mean_of(written.distinct[side]),
        "entropy": along(written.entropy[side]),
        "surprise": along(written.surprise[side]),
        "reference_surprise": along(written.reference_surprise[side]),
    }


def change_of(written: Written) -> Json:
    """Candidate minus reference, paired by prompt."""

    def paired(ours: NDArray[Any], theirs: NDArray[Any]) -> Json:
        return mean_of(np.asarray(theirs, dtype=np.float64) - np.asarray(ours, dtype=np.float64))

    lengths = [np.asarray([len(one) for one in texts]) for texts in written.kl]
    return {
        "length": paired(*lengths),
        "ended": paired(*(one < written.most for one in lengths)),
        "repetition": {str(n): paired(*both) for n, both in written.repetition.items()},
        "distinct": paired(*written.distinct),
        **{
            name: paired(*(np.asarray([one.mean() for one in texts]) for texts in getattr(written, name)))
            for name in ("entropy", "surprise", "reference_surprise")
        },
    }


def cell_of(decoder: str, candidate: int, written: Written) -> Json:
    """One decoder of one candidate."""
    curve = survival_of(written)
    bands = [(1, 8), (9, 16), (17, 32), (33, 64), (65, 128)]
    return {
        "decoder": decoder,
        "candidate": candidate,
        "prompts": len(written.first),
        "first_divergence": first_divergence(written, curve),
        "survival": curve,
        "edit_distance": [
            {"tokens": length, "distance": mean_of(np.asarray([one[:length].mean() for one in written.differ]))}
            for length in EDITS
            if length <= written.most
        ],
        "kl_reference_text": along(written.kl[0]),
        "kl_candidate_text": along(written.kl[1]),
        "amplification": amplification_of(written),
        "along": [
            {
                "first": first,
                "last": last,
                "kl_reference_text": along(written.kl[0], first, last),
                "kl_candidate_text": along(written.kl[1], first, last),
                "entropy_reference": along(written.entropy[0], first, last),
                "entropy_candidate": along(written.entropy[1], first, last),
                "disagreement": along(
                    [one[: min(len(a), len(b))] for one, a, b in zip(written.differ, *written.kl, strict=True)],
                    first,
                    last,
                ),
            }
            for first, last in bands
            if last <= written.most
        ],
        "text": text_of(written, 1),
        "change": change_of(written),
        "nonfinite_positions": 0,
    }
