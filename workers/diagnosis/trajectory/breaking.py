"""Whether texts part at tokens of one kind rather than at others: a permutation test.

Prompt i's texts part at the reference's token T_i, and x_i(t) is whether token t of its reference's text is of the
class. Where texts part has nothing to do with where such tokens stand if the times T_i go with any other prompt's text
as well as with their own. The statistic is the number of texts that part at a token of the class, Σ_i x_i(T_i), over
the prompts whose texts part at a token of the reference. It is held against the same number with the times dealt to
these prompts' texts at random. Each goes to a text that is long enough for it (permutations that keep the truncation:
Tsai, Biometrika 77, 1990; Efron and Petrosian, Journal of the American Statistical Association 94, 1999). That is exact
for independent prompts, however the chance of parting goes with the place and however few texts part. Prompts are not
dealt sort by sort: where texts of one sort part early and have the class early, the two go together. A class that is at
the same places in every text, as first tokens do, has no p-value: what it does cannot be distinguished from what the
place does.

Names: P prompts whose texts part, C classes, R permutations, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS: Final = 10_000


@dataclass(frozen=True)
class Breaking:
    """The share of parting texts that part at a token of the class, as it would be with places dealt to other texts.

    `by_place` is that share. `p_value` is two-sided, of the share that does part there, and not adjusted. It is None
    if no way of dealing changes the share.
    """

    by_place: float
    p_value: float | None


def breaking(
    classes: Sequence[Sequence[NDArray[np.bool_]]],
    first: Sequence[int | None],
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> list[Breaking | None]:
    """For each class; None if no texts part.

    `classes` holds, by class and prompt, whether each token of the reference's text is of the class (T,). `first` the
    position from 1 at which the texts part, None if they do not part at a token of the reference. Raises ValueError
    where a position is outside of its text.
    """
    if not classes or all(at is None for at in first):
        return [None] * len(classes)
    for at, mask in zip(first, classes[0], strict=True):
        if at is not None and not 1 <= at <= len(mask):
            raise ValueError(f"texts part at token {at} of {len(mask)}")
    parted = [prompt for prompt, at in enumerate(first) if at is not None]
    times_P = np.asarray([at for at in first if at is not None], dtype=np.intp)
    lengths_P = np.asarray([len(classes[0][prompt]) for prompt in parted], dtype=np.intp)
    hits_CPP = np.stack([_hits([of[prompt] for prompt in parted], times_P) for of in classes])
    observed_C = np.trace(hits_CPP, axis1=1, axis2=2)
    dealt_RC = _dealt(hits_CPP, times_P, lengths_P, np.random.default_rng(seed), permutations)
    return [
        Breaking(float(dealt_R.mean()) / len(parted), _p_value(int(observed), dealt_R))
        for observed, dealt_R in zip(observed_C, dealt_RC.T, strict=True)
    ]


def _p_value(observed: int, dealt_R: NDArray[np.int64]) -> float | None:
    if (dealt_R == observed).all():
        return None
    # The observed way of dealing is one of them (Phipson and Smyth 2010).
    above = 1 + int(np.count_nonzero(dealt_R >= observed))
    below = 1 + int(np.count_nonzero(dealt_R <= observed))
    return min(1.0, 2 * min(above, below) / (dealt_R.size + 1))


def _hits(masks: Sequence[NDArray[np.bool_]], times_P: NDArray[np.intp]) -> NDArray[np.int64]:
    """(P, P) whether text j has a token of the class at time i; none where it is too short for it."""
    hits_PP = np.zeros((times_P.size, len(masks)), dtype=np.int64)
    for text, mask in enumerate(masks):
        inside = times_P <= len(mask)
        hits_PP[inside, text] = mask[times_P[inside] - 1]
    return hits_PP


def _dealt(
    hits_CPP: NDArray[np.int64],
    times_P: NDArray[np.intp],
    lengths_P: NDArray[np.intp],
    rng: np.random.Generator,
    permutations: int,
) -> NDArray[np.int64]:
    """(R, C) hits of the times dealt to texts that are long enough, each way equally likely.

    Latest time first, each takes one of the texts that are left and long enough. How many those are does not depend on
    what was taken before, since a text that is long enough for a time is so for every earlier one.
    """
    parted = times_P.size
    by_time, by_length = np.argsort(-times_P, kind="stable"), np.argsort(-lengths_P, kind="stable")
    left_RP = np.zeros((permutations, parted), dtype=np.intp)
    rows_R = np.arange(permutations)
    sums_RC = np.zeros((permutations, len(hits_CPP)), dtype=np.int64)
    size = entered = 0
    for time in by_time:
        while entered < parted and lengths_P[by_length[entered]] >= times_P[time]:
            left_RP[:, size] = by_length[entered]
            entered, size = entered + 1, size + 1
        chosen_R = rng.integers(0, size, permutations)
        text_R = left_RP[rows_R, chosen_R]
        sums_RC += hits_CPP[:, time, :].T[text_R]
        size -= 1
        left_RP[rows_R, chosen_R] = left_RP[:, size]
    return sums_RC
