"""Amplification: how much worse a model is running free than one step at a time.

Both factors are ratios of sums over the same positions (prompt i, generated token t), t up to the shorter of the two
texts. So neither length nor choice of prompts differs between numerator and denominator.

    KL factor     Σ KL(p‖q) on the candidate's own text  /  Σ KL(p‖q) on the reference's text

    token factor  Σ [the two texts hold different tokens]  /  Σ [argmax p ≠ argmax q on the reference's text]

1 means that decoding adds nothing to what a teacher-forced comparison shows. The KL factor is above 1 if the
candidate's own errors lead it to places where it errs more. The token factor grows with every token that follows a
first different one.

The interval of a ratio is that of a ratio estimator clustered by prompt (`ratio_intervals`): numerators and
denominators of a prompt are drawn together. There is none where fewer than six prompts tell of it (all, of fewer).
Where texts hardly part, draws of the few that do say nothing of how many others would. Names: N prompts.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.kinds.trajectory.report import Ratio
from workers.distributions.intervals import ratio_intervals

Array = NDArray[np.float64]

# A prompt without any damage must not make a draw's denominator zero.
_LEAST: Final = 1e-9
# So many prompts must tell something for an interval, or all where there are fewer.
FEWEST_TELLING: Final = 6


def ratio_of(
    numerators_N: ArrayLike, denominators_N: ArrayLike, *, telling_N: ArrayLike | None = None, seed: int = 0
) -> Ratio:
    """Ratio of the sums of two non-negative quantities, one value a prompt.

    `telling_N` is false of prompts whose two values are the same by construction (None: of none). Null where the
    denominators' sum is zero; without an interval for a single prompt, and where too few tell (`FEWEST_TELLING`).
    Raises ValueError if lengths differ, a value is negative or not finite.
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (numerators_N, denominators_N))
    if above.ndim != 1 or above.shape != below.shape:
        raise ValueError(f"{above.shape} numerators for {below.shape} denominators")
    both = np.concatenate([above, below])
    if not np.isfinite(both).all() or (both < 0).any():
        raise ValueError("a value is negative or not finite")
    total = float(below.sum())
    if total <= 0:
        return Ratio(value=None, ci=None)
    value = float(above.sum()) / total
    tell = np.ones(above.size, dtype=np.bool_) if telling_N is None else np.asarray(telling_N, dtype=np.bool_)
    telling = min(int(np.count_nonzero(values)) for values in (above, below, tell))
    if above.size < 2 or telling < min(FEWEST_TELLING, above.size) or (above == below).all():
        return Ratio(value=value, ci=None)
    counts = np.maximum(below, _LEAST * total / below.size)
    _, _, low, high = ratio_intervals(above[None, :], counts[None, :], seed=seed)
    ci = (min(max(0.0, float(low[0])), value), max(float(high[0]), value))
    return Ratio(value=value, ci=ci)


def conclusion_of(ratio: Ratio, numerators_N: ArrayLike) -> Literal["amplifies", "damps", "open", "no_damage"]:
    """What the KL factor says: `amplifies`, `damps`, `open`, or `no_damage` where there is nothing to amplify.

    `numerators_N` are those that the ratio was taken of. Where they are above zero and no denominator is, no factor
    and no interval shows by how much: that is `open`.
    """
    if ratio.value is None:
        return "open" if np.any(numerators_N) else "no_damage"
    if ratio.ci is None:
        return "open"
    return "amplifies" if ratio.ci[0] > 1 else "damps" if ratio.ci[1] < 1 else "open"
