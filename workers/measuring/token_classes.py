"""From masks and values to the report: each class as a slice, and whether it loses more than the rest.

The difference of the class's mean KL and that of all other positions is one of two ratios over the same documents. So
its error comes by linearization of both together (Cochran, Sampling Techniques, §6.17). With y and n the sums of KL and
of tokens of document i in the class (c) and outside (r), and N documents,

    D = r_c − r_r,   e_i = (y_ci − r_c n_ci) / n_c − (y_ri − r_r n_ri) / n_r,   se² = N/(N−1) Σ e_i²,

and D/se is held against Student's t. The interval is D ± t(97.5 %) se, and excludes 0 just where the p value of D = 0
is below 5 %. Its degrees of freedom are those of the side that is in fewer documents, less one. Linearization does
not see the variation of a side whose sums come from two or three documents (Cameron and Miller, A Practitioner's Guide
to Cluster-Robust Inference, 2015, §VI). Nor does it see what a class of few tokens lacks by chance. A few large values
make up most of KL, and without them both mean and spread of the class are small. So se is at least s √(1/n_c + 1/n_r),
what it would be if the class were like the rest. Here s is the standard deviation of all tokens within their documents.
The p values that are reported are adjusted over the classes by Holm's step-down rule (1979), which holds whatever the
dependence between classes. Of a side in one document alone nothing can be stated, and neither interval nor p value is
given.

The share of the summed KL is a ratio, too: the class's sum of a document over the document's sum of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from app.contracts.report import Mean, Slice, TokenClasses, TokenClassSlice
from workers.distributions.intervals import FEWEST_CLUSTERS, ROUNDING, Estimate, ratio_intervals
from workers.distributions.significance import holm
from workers.distributions.token_values import Positions, TokenValues
from workers.measuring.classify import Classified
from workers.measuring.summary import as_mean, slices, usable
from workers.text.token_classes.catalogue import CLASSES, TokenClass
from workers.text.token_classes.text import Mask

LEVEL = 0.05
_SURE = 1 - LEVEL / 2


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
    *parts, rest = slices(values, positions, [*masks, found.of_none], seed=seed, check_cancelled=check_cancelled)
    differences = [difference(kl[finite], positions.select(finite), mask[finite]) for mask in masks]
    p_values = holm([p for _, p in differences])
    total = float(kl.sum())
    shares = share_intervals(kl[finite], positions.select(finite), [mask[finite] for mask in masks], seed=seed)
    return TokenClasses(
        classes=tuple(
            _class(one, part, mask, kl, finite, total, share, estimate, p)
            for one, part, mask, share, (estimate, _), p in zip(
                present, parts, masks, shares, differences, p_values, strict=True
            )
        ),
        absent=tuple(one.title for one in CLASSES if not found.masks[one.name].any()),
        none=rest if rest.tokens else None,
        multiplicity=multiplicity(
            len(present), [one.title for one, p in zip(present, p_values, strict=True) if p is None]
        ),
    )


def multiplicity(classes: int, without: Sequence[str]) -> str:
    """What so many classes mean for the intervals and p values of their differences; `without` are the titles of those
    that have neither."""
    judged = classes - len(without)
    told = [f"{classes} {'class was' if classes == 1 else 'classes were'} looked at, and they overlap."]
    if without:
        told.append(
            f"Of {len(without)} the difference from all other positions has neither interval nor p value, since either "
            f"side is in at most one document (or window): {', '.join(without)}."
        )
    if judged:
        told.append(
            f"Each interval of a difference is a 95 % one of its own: of {judged} such about {judged * LEVEL:.2g} miss "
            f"by chance. The p values are of the difference from all other positions, adjusted over {judged} "
            f"{'class' if judged == 1 else 'classes'} (Holm). Below {LEVEL:g} the class differs, and the chance that "
            f"any such statement of this table is wrong is at most {100 * LEVEL:g} %."
        )
    return " ".join(told)


def difference(kl: npt.NDArray[np.float64], positions: Positions, mask: Mask) -> tuple[Estimate | None, float | None]:
    """Mean KL of the mask's positions minus that of the others with its interval, and the p value of no difference.

    Clusters are documents, windows where documents are few. The interval excludes 0 if p < 5 %, and only there.
    (None, None) where either side is empty. Neither interval nor p value where a side is in a single cluster. p is
    0 or 1 if neither side varies, within its clusters or between them.
    """
    if not mask.any() or mask.all():
        return None, None
    cluster, by = _clusters(positions)
    clusters = int(cluster.max()) + 1
    error_N = np.zeros(clusters)
    means = []
    fewest = clusters
    for sign, side in ((1.0, mask), (-1.0, ~mask)):
        tokens_N = np.bincount(cluster[side], minlength=clusters).astype(np.float64)
        sums_N = np.bincount(cluster[side], weights=kl[side], minlength=clusters)
        mean = float(sums_N.sum() / tokens_N.sum())
        error_N += sign * (sums_N - mean * tokens_N) / tokens_N.sum()
        means.append(mean)
        fewest = min(fewest, int(np.count_nonzero(tokens_N)))
    gap = means[0] - means[1]
    if abs(gap) <= ROUNDING * sum(means):
        gap = 0.0
    if fewest < 2:
        return Estimate(gap, None, None, len(kl), clusters, by), None
    error = float(np.sqrt(clusters / (clusters - 1) * np.square(error_N).sum()))
    inside = int(np.count_nonzero(mask))
    error = max(error, _within(kl, cluster) * float(np.sqrt(1 / inside + 1 / (kl.size - inside))))
    if error <= ROUNDING * sum(means):
        error = 0.0
    reach = error * float(stats.t.ppf(_SURE, fewest - 1))
    estimate = Estimate(gap, error, (gap - reach, gap + reach), len(kl), clusters, by)
    return estimate, _p_value(gap, error, fewest - 1)


def _within(kl: npt.NDArray[np.float64], cluster: npt.NDArray[np.intp]) -> float:
    """Standard deviation of the values within their clusters, pooled; 0 if no cluster has two values."""
    counts_N = np.bincount(cluster)
    free = kl.size - counts_N.size
    left = kl - (np.bincount(cluster, weights=kl) / counts_N)[cluster]
    return float(np.sqrt(np.square(left).sum() / free)) if free else 0.0


def _p_value(gap: float, error: float, freedom: int) -> float:
    if error == 0:
        return 1.0 if gap == 0 else 0.0
    return float(2 * stats.t.sf(abs(gap) / error, freedom))


def _clusters(positions: Positions) -> tuple[npt.NDArray[np.intp], Literal["documents", "windows"]]:
    """The cluster of each position: its document, its window where documents are few."""
    documents = np.unique(positions.document).size >= FEWEST_CLUSTERS
    _, cluster = np.unique(positions.document if documents else positions.window, return_inverse=True)
    return cluster, "documents" if documents else "windows"


def share_intervals(
    kl: npt.NDArray[np.float64], positions: Positions, masks: Sequence[Mask], *, seed: int = 0
) -> list[tuple[float, float] | None]:
    """95 % intervals of the shares that the masks' positions have in the summed KL, within 0 and 1.

    None if nothing is lost at all, or where a single cluster holds all that is.
    """
    if not masks or not kl.any():
        return [None] * len(masks)
    cluster, _ = _clusters(positions)
    total_N = np.bincount(cluster, weights=kl).astype(np.float64)
    lossy = total_N > 0  # a document without any loss says nothing of where loss is
    if np.count_nonzero(lossy) < 2:
        return [None] * len(masks)
    sums_QN = np.stack(
        [np.bincount(cluster, weights=kl * mask, minlength=total_N.size)[lossy].astype(np.float64) for mask in masks]
    )
    # Draws go by index: in the order of the sums, that of the documents does not matter.
    order = np.lexsort((*sums_QN[::-1], total_N[lossy]))
    share_Q, _, low_Q, high_Q = ratio_intervals(sums_QN[:, order], total_N[lossy][None, order], seed=seed)
    return [
        (min(max(float(low), 0.0), float(share)), max(min(float(high), 1.0), float(share)))
        for share, low, high in zip(share_Q, low_Q, high_Q, strict=True)
    ]


def _class(
    one: TokenClass,
    part: Slice,
    mask: Mask,
    kl: npt.NDArray[np.float64],
    finite: Mask,
    total: float,
    share: tuple[float, float] | None,
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
        share_of_kl_ci=share,
        nonfinite_positions=int(np.count_nonzero(mask & ~finite)),
        difference=gap,
        p_value=p,
    )
