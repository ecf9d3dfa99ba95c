"""The curve of a sweep, domain by domain: prose may stay mild where code no longer does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.contracts.requests.base import Thresholds
from app.contracts.sweep_report import SweepDomain
from workers.diagnosis.points.clusters import Clustered
from workers.diagnosis.points.record import WindowSums
from workers.diagnosis.summary import as_mean
from workers.diagnosis.sweep.course import Course, Turned
from workers.distributions.statistics import exponential

TOO_FEW: Final = "too few documents"
_NOTHING: Final = Mean(mean=None, ci=None)


def domains(
    course: Course,
    domain_D: Sequence[str],
    *,
    floor: float,
    thresholds: Thresholds,
    seed: int,
    check_cancelled: Callable[[], None],
) -> dict[str, SweepDomain]:
    """Each domain of the text, by name; `domain_D` is the domain of each document, `floor` the mean noise floor.

    A domain with fewer documents than intervals are clustered by has means only. One without a usable token stands in
    none of it; empty where no point is whole.
    """
    whole = course.whole
    if not whole or whole[0].record.sums is None:
        return {}
    tokens_W = np.asarray(whole[0].record.sums.tokens, dtype=np.int64)
    names_W = np.array([domain_D[document] for document in course.document_W])
    found = {}
    for name in sorted(set(names_W.tolist())):
        check_cancelled()
        own_W = np.where(names_W == name, tokens_W, 0)
        if own_W.any():
            found[str(name)] = _domain(course, own_W, floor=floor, thresholds=thresholds, seed=seed)
    return found


def _domain(
    course: Course, tokens_W: NDArray[np.int64], *, floor: float, thresholds: Thresholds, seed: int
) -> SweepDomain:
    clusters = Clustered.of(tokens_W.tolist(), course.document_W)
    enough = clusters.by == "documents"
    sums: list[WindowSums | None] = [point.record.sums if point.record.whole else None for point in course.points]
    known = [one for one in sums if one is not None]
    kl_PN = [clusters.sums(one.kl) for one in known]
    ratio_PN = [clusters.sums(one.loss) - clusters.sums(one.reference_loss) for one in known]
    excess = clusters.means([kl_N - floor * clusters.counts_N for kl_N in kl_PN], seed=seed)
    ratios = [
        as_mean(estimate.mapped(exponential), (0.0, np.inf)) for estimate in clusters.estimates(ratio_PN, seed=seed)
    ]
    uppers = iter([mean.ci[1] if mean.ci else np.inf for mean in excess])
    upper_of = {
        point.index: np.inf if one is None else next(uppers) for point, one in zip(course.points, sums, strict=True)
    }
    limit = thresholds.moderate if enough else -np.inf
    sides = [_largest(side, upper_of, limit) for side in course.sides()]
    below_above = [None if last is None else last.value for last in sides]
    last = None if sides else _largest(course, upper_of, limit)
    return SweepDomain(
        tokens=int(tokens_W.sum()),
        documents=np.unique(course.document_W[tokens_W > 0]).size,
        kl=_in_order(sums, clusters.means(kl_PN, seed=seed, low=0.0), enough=enough),
        perplexity_ratio=_in_order(sums, ratios, enough=enough),
        largest_mild=None if last is None else last.value,
        largest_mild_sides=(below_above[0], below_above[1]) if sides else None,
        note="" if enough else TOO_FEW,
        null_is_value=last is not None and last.value is None,
    )


def _largest(course: Course, upper_of: Mapping[int, float], limit: float) -> Turned | None:
    """The strongest point that is within the limit with all weaker ones; those that no order tells apart stand by their
    own damage."""
    measured = [point for point in course.points if not point.record.refused]
    measured.sort(key=lambda point: (course.rank(point), upper_of[point.index]))
    within = list(takewhile(lambda point: upper_of[point.index] < limit, measured))
    return within[-1] if within else None


def _in_order(sums: Sequence[WindowSums | None], means: Sequence[Mean], *, enough: bool) -> tuple[Mean, ...]:
    """A mean for each point; without interval where documents are too few for one."""
    left = iter(means)
    every = [_NOTHING if one is None else next(left) for one in sums]
    return tuple(mean if enough else mean.model_copy(update={"ci": None, "clusters": None}) for mean in every)
