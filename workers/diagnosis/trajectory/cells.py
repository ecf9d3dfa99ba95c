"""One decoder of one candidate: from texts and values at their positions to a cell of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.kinds.trajectory.report import (
    Amplification,
    Band,
    Cell,
    EditDistance,
    FirstDivergence,
    SurvivalPoint,
    TextStatistics,
)
from workers.decoding.model import Continuation
from workers.diagnosis.trajectory import pairs
from workers.diagnosis.trajectory.amplification import conclusion_of, ratio_of
from workers.diagnosis.trajectory.means import NONE, POSITIVE, SHARE, Support, change_over, mean_over, share_of_prompts
from workers.diagnosis.trajectory.survival import median, survival
from workers.distributions.token_values import TokenValues
from workers.measuring.summary import usable

Array = NDArray[np.float64]
_OF_TEXTS = ("length", "ended", "distinct", "entropy", "surprise", "reference_surprise")


@dataclass(frozen=True)
class Path:
    """One model's texts by one decoder, and the values at their positions, one `TokenValues` a prompt."""

    texts: Sequence[Continuation]
    values: Sequence[TokenValues]
    own: str  # "reference" or "candidate": whose texts they are

    def column(self, name: str) -> list[Array]:
        """A value by prompt and position; NaN if the logits of either model are not finite."""
        return [np.where(usable(values), getattr(values, name).astype(np.float64), np.nan) for values in self.values]

    @property
    def entropy(self) -> list[Array]:
        """Of the writer's own distribution, nats."""
        return self.column(f"entropy_{self.own}")

    @property
    def surprise(self) -> list[Array]:
        """−ln probability of each token under the writer, nats."""
        return [-column for column in self.column(f"logp_{self.own}")]

    @property
    def reference_surprise(self) -> list[Array]:
        """The same under the reference."""
        return [-column for column in self.column("logp_reference")]


def labelled(by_prompt: Sequence[NDArray[np.generic]]) -> tuple[Array, NDArray[np.int64]]:
    """Values of all prompts one after the other, and the prompt of each."""
    lengths = [len(column) for column in by_prompt]
    joined = np.concatenate([np.zeros(0), *(np.asarray(column, dtype=np.float64) for column in by_prompt)])
    return joined, np.repeat(np.arange(len(by_prompt)), lengths)


def text_statistics(path: Path, *, most: int, seed: int) -> TextStatistics:
    """What the texts of at most `most` tokens look like. A text shorter than n tokens is left out of the repetition of
    n-grams."""
    prompts = np.arange(len(path.texts))
    means = {
        name: mean_over([column], prompts, [_lengths(most) if name == "length" else SHARE], seed=seed)[0]
        for name, column in _of_prompts(path).items()
    }
    # KL first, so that resamples are those of the report's blocks, which hold the reference's entropy, too.
    columns = {"kl": path.column("kl"), "entropy": path.entropy, "surprise": path.surprise}
    means |= _along_texts(columns | {"reference_surprise": path.reference_surprise}, seed)
    return _statistics(means | {"ended": share_of_prompts([text.ended for text in path.texts])})


def _statistics(means: dict[str, Mean]) -> TextStatistics:
    repetition = {str(n): means.pop(f"repetition{n}") for n in pairs.REPETITION_ORDERS}
    return TextStatistics(repetition=repetition, **{name: means[name] for name in _OF_TEXTS})


def _lengths(most: int) -> Support:
    """Of a text's length: the token that ends it counts."""
    return (1.0, float(most))


def _of_prompts(path: Path) -> dict[str, list[float]]:
    found = {"length": [float(len(text.tokens)) for text in path.texts]}
    for n in pairs.REPETITION_ORDERS:
        found[f"repetition{n}"] = [pairs.repetition(text.tokens, n) for text in path.texts]
    found["distinct"] = [pairs.distinct(text.tokens) for text in path.texts]
    return found


def _along_texts(columns: dict[str, list[Array]], seed: int) -> dict[str, Mean]:
    values = {name: labelled(by_prompt) for name, by_prompt in columns.items()}
    _, prompts = next(iter(values.values()))
    means = mean_over([column for column, _ in values.values()], prompts, [POSITIVE] * len(values), seed=seed)
    return dict(zip(values, means, strict=True))


def text_change(reference: Path, candidate: Path, *, most: int, seed: int) -> TextStatistics:
    """Candidate minus reference, paired by prompt. A prompt for which either has no value is left out of its mean.
    `most` is the most tokens that a text could have."""
    theirs, ours = _of_prompts(candidate), _of_prompts(reference)
    for found, path in ((theirs, candidate), (ours, reference)):
        found["ended"] = [float(text.ended) for text in path.texts]
        found["entropy"] = [_mean(column) for column in path.entropy]
        found["surprise"] = [_mean(column) for column in path.surprise]
        found["reference_surprise"] = [_mean(column) for column in path.reference_surprise]
    supports = dict.fromkeys(theirs, SHARE) | {"length": _lengths(most)}
    supports |= dict.fromkeys(("entropy", "surprise", "reference_surprise"), POSITIVE)
    means = {name: change_over(ours[name], theirs[name], supports[name], seed=seed) for name in theirs}
    return _statistics(means)


def _mean(column: Array) -> float:
    finite = column[np.isfinite(column)]
    return float(finite.mean()) if finite.size else float("nan")


def cell(
    decoder: str,
    candidate: int,
    ours: Path,
    theirs: Path,
    *,
    most: int,
    seed: int,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Cell:
    """A cell from the reference's texts (`ours`) and the candidate's. `check_cancelled` may raise: edit distances of
    long texts take seconds per pair."""
    first = [
        pairs.first_difference(one.tokens, other.tokens) for one, other in zip(ours.texts, theirs.texts, strict=True)
    ]
    curve = survival(first, most)
    kl = [labelled(path.column("kl")) for path in (ours, theirs)]
    means = [mean_over([column], prompts, [POSITIVE], seed=seed)[0] for column, prompts in kl]
    return Cell(
        decoder=decoder,
        candidate=candidate,
        prompts=len(first),
        first_divergence=_first_divergence(first, ours, curve, most, seed),
        survival=curve,
        edit_distance=_edit_distances(ours, theirs, most, seed, check_cancelled),
        kl_reference_text=means[0],
        kl_candidate_text=means[1],
        amplification=amplification(ours, theirs, seed=seed),
        along=_along(ours, theirs, most, seed),
        text=text_statistics(theirs, most=most, seed=seed),
        change=text_change(ours, theirs, most=most, seed=seed),
        nonfinite_positions=sum(int((~usable(values)).sum()) for path in (ours, theirs) for values in path.values),
    )


def _first_divergence(
    first: Sequence[int | None], ours: Path, curve: Sequence[SurvivalPoint], most: int, seed: int
) -> FirstDivergence:
    middle, interval = median(curve)
    lengths = [len(text.tokens) for text in ours.texts]
    shared = [float(length if at is None else at - 1) for at, length in zip(first, lengths, strict=True)]
    return FirstDivergence(
        diverged=share_of_prompts([at is not None for at in first]),
        median=middle,
        median_ci=interval,
        shared_prefix=mean_over([shared], np.arange(len(shared)), [(0.0, float(most))], seed=seed)[0],
    )


def _edit_distances(
    ours: Path, theirs: Path, most: int, seed: int, check_cancelled: Callable[[], None]
) -> tuple[EditDistance, ...]:
    lengths = pairs.lengths_up_to(most)
    rows = [
        pairs.edit_shares(one.tokens, other.tokens, lengths, check_cancelled=check_cancelled)
        for one, other in zip(ours.texts, theirs.texts, strict=True)
    ]
    columns = np.asarray(rows).T
    means = mean_over(list(columns), np.arange(len(rows)), [SHARE] * len(lengths), seed=seed)
    return tuple(EditDistance(tokens=length, distance=mean) for length, mean in zip(lengths, means, strict=True))


def amplification(ours: Path, theirs: Path, *, seed: int) -> Amplification:
    """Both factors, over the positions that both texts have and at which all logits are finite."""
    on_ours, on_theirs = ours.column("kl"), theirs.column("kl")
    one_step = [1.0 - column for column in ours.column("top1_agree")]
    differ = [
        pairs.disagreements(one.tokens, other.tokens).astype(np.float64)
        for one, other in zip(ours.texts, theirs.texts, strict=True)
    ]
    kept = [
        np.isfinite(a[: len(d)]) & np.isfinite(b[: len(d)]) for a, b, d in zip(on_ours, on_theirs, differ, strict=True)
    ]

    def cut(columns: Sequence[Array]) -> list[Array]:
        return [column[: len(mask)][mask] for column, mask in zip(columns, kept, strict=True)]

    def sums(columns: Sequence[Array]) -> list[float]:
        return [float(column.sum()) for column in cut(columns)]

    own = sums(on_theirs)
    # Up to the first token that differs, that one included, both models read the same: only what follows shows.
    goes_on = [bool(d[:-1].any()) for d in differ]
    kl = ratio_of(own, sums(on_ours), telling_N=goes_on, seed=seed)
    tokens = ratio_of(sums(differ), sums(one_step), seed=seed)
    columns = [labelled(cut(column)) for column in (on_ours, one_step, on_theirs, differ)]
    (kl_T, one_T, own_kl_T, free_T), (prompts_T, *_) = zip(*columns, strict=True)
    # Resamples are drawn in an order of prompts that the first of the values taken together decides: KL is so here as
    # in every other mean of it, and one quantity has one interval in a report.
    kl_ours, one = mean_over([kl_T, one_T], prompts_T, [POSITIVE, SHARE], seed=seed)
    ((kl_theirs,), (free,)) = (
        mean_over([values_T], prompts_T, [support], seed=seed)
        for values_T, support in ((own_kl_T, POSITIVE), (free_T, SHARE))
    )
    seen = any(mask.any() for mask in kept)
    return Amplification(
        kl=kl,
        kl_reference_text=kl_ours,
        kl_candidate_text=kl_theirs,
        tokens=tokens,
        one_step=one,
        free=free,
        conclusion=conclusion_of(kl, own) if seen else "open",
    )


def _along(ours: Path, theirs: Path, most: int, seed: int) -> tuple[Band, ...]:
    differ = [
        pairs.disagreements(one.tokens, other.tokens).astype(np.float64)
        for one, other in zip(ours.texts, theirs.texts, strict=True)
    ]
    columns: dict[str, tuple[Sequence[Array], Support]] = {
        "kl_reference_text": (ours.column("kl"), POSITIVE),
        "kl_candidate_text": (theirs.column("kl"), POSITIVE),
        "entropy_reference": (ours.entropy, POSITIVE),
        "entropy_candidate": (theirs.entropy, POSITIVE),
        "disagreement": (differ, SHARE),
    }
    bands = []
    for first, last in pairs.bands_up_to(most):
        means = {}
        for name, (by_prompt, support) in columns.items():
            part, prompts = labelled([column[first - 1 : last] for column in by_prompt])
            means[name] = mean_over([part], prompts, [support], seed=seed)[0] if part.size else NONE
        bands.append(Band(first=first, last=last, **means))
    return tuple(bands)
