"""The curve of a sweep over a part of the text's positions, judged as the whole is: a domain, a class of tokens.

Names: P whole points, W windows, N clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import Setting
from app.kinds.sweep.report import SweepSlice
from workers.diagnosis.sweep.course import Course
from workers.distributions.statistics import exponential
from workers.measuring.points.clusters import Array, Clustered
from workers.measuring.summary import as_mean

TOO_FEW: Final = "too few documents"
_NOTHING: Final = Mean(mean=None, ci=None)


@dataclass(frozen=True)
class PartSums:
    """Sums of a part of the positions by window: its tokens, of which there is one at least, and of each whole point
    KL(reference‖candidate) and the log-ratio, which is the candidate's loss minus the reference's, in nats.

    Sums of windows without a token of the part are not looked at.
    """

    tokens_W: NDArray[np.int64]
    kl_PW: Sequence[Array]
    log_ratio_PW: Sequence[Array]


def sliced(course: Course, part: PartSums, *, floor: float, thresholds: Thresholds, seed: int) -> SweepSlice:
    """What a part of the positions says of every point; `floor` is the mean noise floor in nats.

    A part in fewer documents than intervals are clustered by has means only.
    """
    clusters = Clustered.of(part.tokens_W.tolist(), course.document_W)
    enough = clusters.by == "documents"
    kl_PN = [clusters.sums(kl_W) for kl_W in part.kl_PW]
    ratio_PN = [clusters.sums(ratio_W) for ratio_W in part.log_ratio_PW]
    excess = clusters.means([kl_N - floor * clusters.counts_N for kl_N in kl_PN], seed=seed)
    ratios = [
        as_mean(estimate.mapped(exponential), (0.0, np.inf)) for estimate in clusters.estimates(ratio_PN, seed=seed)
    ]
    uppers = iter([mean.ci[1] if mean.ci else np.inf for mean in excess])
    upper_of = {point.index: next(uppers) if point.record.whole else np.inf for point in course.points}
    limit = thresholds.moderate if enough else -np.inf
    sides = [_largest(side, upper_of, limit) for side in course.sides()]
    return SweepSlice(
        tokens=int(part.tokens_W.sum()),
        documents=np.unique(course.document_W[part.tokens_W > 0]).size,
        kl=_in_order(course, clusters.means(kl_PN, seed=seed, low=0.0), enough=enough),
        perplexity_ratio=_in_order(course, ratios, enough=enough),
        largest_mild=None if sides else _largest(course, upper_of, limit),
        largest_mild_sides=(sides[0], sides[1]) if sides else None,
        note="" if enough else TOO_FEW,
    )


def _largest(course: Course, upper_of: Mapping[int, float], limit: float) -> Setting | None:
    """The strongest setting that is within the limit with all weaker ones; those that no order distinguishes stand by
    their own damage."""
    measured = [point for point in course.points if not point.record.refused]
    measured.sort(key=lambda point: (course.rank(point), upper_of[point.index]))
    within = list(takewhile(lambda point: upper_of[point.index] < limit, measured))
    return Setting(value=within[-1].value) if within else None


def _in_order(course: Course, means: Sequence[Mean], *, enough: bool) -> tuple[Mean, ...]:
    """A mean for each point; without interval where documents are too few for one."""
    left = iter(means)
    every = [next(left) if point.record.whole else _NOTHING for point in course.points]
    return tuple(mean if enough else mean.model_copy(update={"ci": None, "clusters": None}) for mean in every)
