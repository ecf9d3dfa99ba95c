"""The curve of a sweep, domain by domain: prose may stay mild where code no longer does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from app.contracts.request import Thresholds
from app.kinds.sweep.report import SweepSlice
from workers.diagnosis.sweep.course import Course
from workers.diagnosis.sweep.slices import PartSums, sliced


def domains(
    course: Course,
    domain_D: Sequence[str],
    *,
    floor: float,
    thresholds: Thresholds,
    seed: int,
    check_cancelled: Callable[[], None],
) -> dict[str, SweepSlice]:
    """Each domain of the text, by name; `domain_D` is the domain of each document, `floor` the mean noise floor.

    A domain with fewer documents than intervals are clustered by has means only. One without a usable token is in
    none of it; empty where no point is whole.
    """
    sums = [point.record.sums for point in course.whole if point.record.sums is not None]
    if not sums:
        return {}
    tokens_W = np.asarray(sums[0].tokens, dtype=np.int64)
    kl_PW = [np.asarray(one.kl) for one in sums]
    log_ratio_PW = [np.asarray(one.loss) - np.asarray(one.reference_loss) for one in sums]
    names_W = np.array([domain_D[document] for document in course.document_W])
    found = {}
    for name in sorted(set(names_W.tolist())):
        check_cancelled()
        own_W = np.where(names_W == name, tokens_W, 0)
        if own_W.any():
            part = PartSums(own_W, kl_PW, log_ratio_PW)
            found[str(name)] = sliced(course, part, floor=floor, thresholds=thresholds, seed=seed)
    return found
