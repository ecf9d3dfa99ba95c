"""From masks and values to the report: each class as a slice, and whether it loses more than the rest.

The difference of the class's mean KL and that of all other positions is one of two ratios over the same documents, so
its error comes by linearization of both together (Cochran, Sampling Techniques, §6.17). With y and n the sums of KL and
of tokens of document i in the class (c) and outside (r), and N documents,

    D = r_c − r_r,   e_i = (y_ci − r_c n_ci) / n_c − (y_ri − r_r n_ri) / n_r,   se² = N/(N−1) Σ e_i²,

and D + N e_i are values whose mean is D and whose standard error is se: their interval is the same studentized
bootstrap as that of every mean here. p values are of D/se by Student's t with N − 1 degrees of freedom, adjusted over
the classes by Holm's step-down rule (1979), which holds whatever the dependence between classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from app.contracts.report import Mean, Slice, TokenClasses, TokenClassSlice
from workers.diagnosis.summary import as_mean, bands, slices, usable
from workers.diagnosis.tasks.statistics.multiplicity import holm
from workers.diagnosis.token_classes.catalogue import CLASSES, TokenClass
from workers.diagnosis.token_classes.classify import Classified
from workers.diagnosis.token_classes.frequency import RULE, edges
from workers.diagnosis.token_classes.text import Mask
from workers.distributions.intervals import FEWEST_CLUSTERS, Estimate, ratio_intervals
from workers.distributions.token_values import Positions, TokenValues

LEVEL = 0.05


def token_classes(
    values: TokenValues,
    positions: Positions,
    found: Classified,
    *,
    seed: int = 0,
    check_cancelled: Callable[[], None] = lambda: None,
) -> TokenClasses:
    """The block of the report. Positions that are not finite are counted in their classes and left out of every
    mean."""
    finite = usable(values)
    kl = np.where(finite, values.kl.astype(np.float64), 0.0)
    present = [one for one in CLASSES if found.masks[one.name].any()]
    masks = [found.masks[one.name] for one in present]
    of_none = ~np.logical_or.reduce(masks) if masks else np.ones(len(values), dtype=np.bool_)
    *parts, rest = slices(values, positions, [*masks, of_none], seed=seed, check_cancelled=check_cancelled)
    differences = [difference(kl[finite], positions.select(finite), mask[finite], seed=seed) for mask in masks]
    p_values = adjusted([p for _, p in differences])
    total = float(kl.sum())
    return TokenClasses(
        classes=tuple(
            _class(one, part, mask, kl, finite, total, estimate, p)
            for one, part, mask, (estimate, _), p in zip(present, parts, masks, differences, p_values, strict=True)
        ),
        absent=tuple(one.title for one in CLASSES if not found.masks[one.name].any()),
        none=rest if rest.tokens else None,
        multiplicity=multiplicity(len(present)),
        by_frequency=bands(
            values,
            positions,
            found.occurrences,
            edges(found.occurrences),
            seed=seed,
            check_cancelled=check_cancelled,
        ),
        frequency_rule=RULE,
    )


def multiplicity(classes: int) -> str:
    """What so many classes mean for their intervals."""
    return (
        f"{classes} classes were looked at, and they overlap. Each interval is a 95 % one of its own: of {classes} "
        f"such about {classes * LEVEL:.1f} miss by chance. p values are of the difference from all other positions, "
        f"adjusted over the classes (Holm): below {LEVEL:g} the class differs, and the chance that any such statement "
        f"of this table is wrong is at most {LEVEL:.0%}."
    )


def difference(
    kl: npt.NDArray[np.float64], positions: Positions, mask: Mask, *, seed: int = 0
) -> tuple[Estimate | None, float | None]:
    """Mean KL of the mask's positions minus that of the others with its interval, and the p value of no difference.

    Clusters are documents, windows where documents are few. (None, None) where either side is empty; no p value where
    there is a single cluster; p is 0 or 1 where clusters do not vary at all.
    """
    if not mask.any() or mask.all():
        return None, None
    labels = positions.document
    by: Any = "documents"
    if np.unique(labels).size < FEWEST_CLUSTERS:
        labels, by = positions.window, "windows"
    _, cluster = np.unique(labels, return_inverse=True)
    clusters = int(cluster.max()) + 1
    error_N = np.zeros(clusters)
    means = []
    for sign, side in ((1.0, mask), (-1.0, ~mask)):
        tokens_N = np.bincount(cluster[side], minlength=clusters).astype(np.float64)
        sums_N = np.bincount(cluster[side], weights=kl[side], minlength=clusters)
        mean = float(sums_N.sum() / tokens_N.sum())
        error_N += sign * (sums_N - mean * tokens_N) / tokens_N.sum()
        means.append(mean)
    gap = means[0] - means[1]
    pseudo_N = np.sort(gap + clusters * error_N)
    _, error, low, high = ratio_intervals(
        pseudo_N[None, :], np.ones((1, clusters)), np.asarray([sum(means)]), seed=seed
    )
    known = clusters > 1
    estimate = Estimate(
        mean=gap,
        standard_error=float(error[0]) if known else None,
        interval=(float(low[0]), float(high[0])) if known else None,
        tokens=len(kl),
        clusters=clusters,
        by=by,
    )
    return estimate, _p_value(gap, float(error[0]), clusters) if known else None


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted by Holm's rule; what is None stays so and is not counted."""
    known = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(known) for p in p_values]


def _p_value(gap: float, error: float, clusters: int) -> float:
    if error == 0:
        return 1.0 if gap == 0 else 0.0
    return float(2 * stats.t.sf(abs(gap) / error, clusters - 1))


def _class(
    one: TokenClass,
    part: Slice,
    mask: Mask,
    kl: npt.NDArray[np.float64],
    finite: Mask,
    total: float,
    estimate: Estimate | None,
    p: float | None,
) -> TokenClassSlice:
    fields: Mapping[str, Any] = {name: getattr(part, name) for name in Slice.model_fields}
    gap: Mean | None = None if estimate is None else as_mean(estimate)
    return TokenClassSlice(
        **fields,
        name=one.name,
        title=one.title,
        definition=one.definition,
        share=part.tokens / max(1, int(np.count_nonzero(finite))),
        share_of_kl=float(kl[mask].sum()) / total if total > 0 else None,
        nonfinite_positions=int(np.count_nonzero(mask & ~finite)),
        difference=gap,
        p_value=p,
    )
