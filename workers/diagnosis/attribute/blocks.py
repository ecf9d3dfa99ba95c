"""From what was summed up to the blocks of a report: means with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.kinds.attribute import blocks
from workers.diagnosis.attribute.activations import ActivationErrors, SelfRepair, sqnr
from workers.diagnosis.attribute.alignment import Alignment, GapDamage
from workers.diagnosis.attribute.attention import AttentionShift, Looks, over_heads
from workers.diagnosis.attribute.matching import GAP_PRICE
from workers.diagnosis.attribute.moe import RoutingShift
from workers.diagnosis.attribute.sums import Sums
from workers.distributions.intervals import FEWEST_CLUSTERS, cluster_order
from workers.surgery.callbacks import CheckCancelled, never_cancelled

# Outlier channels that a border lists; the others are counted.
LISTED = 5
# Draws for figures whose interval is by percentiles.
DRAWS = 1000
# The values that a divergence, an entropy or a distance, and those that a share can have.
POSITIVE = (0.0, math.inf)
_REAL = (-math.inf, math.inf)
_SHARE = (0.0, 1.0)
_DISTANCES = ("js", "kl", "tv")
_SUPPORTS = {"js": POSITIVE, "kl": POSITIVE, "tv": _SHARE, "sink": _SHARE, "entropy": POSITIVE, "reach": POSITIVE}


class _Hooked(TypedDict):
    """What the means of one block have in common."""

    seed: int
    check_cancelled: CheckCancelled


def measured(tokens: tuple[int, int], documents: Sequence[int] | NDArray[Any]) -> blocks.Measured:
    """Of windows of one length, (N, L)."""
    return blocks.Measured(
        windows=tokens[0], tokens=tokens[0] * tokens[1], documents=int(np.unique(np.asarray(documents)).size)
    )


def alignment_block(found: Alignment, text: blocks.Measured, *, seed: int) -> blocks.LayerAlignment:
    """The block of an alignment."""
    total = found.total.mean(seed=seed, support=POSITIVE)
    additive = _over(found.total, *(gap.swapped for gap in found.gaps), found.matched, seed=seed)
    rows, columns = found.similarity_RC.shape
    return blocks.LayerAlignment(
        measured=text,
        reference_layers=rows,
        candidate_layers=columns,
        resamplings=found.resamplings,
        pairs=tuple(
            blocks.LayerPair(
                reference=ours,
                candidate=theirs,
                similarity=float(found.similarity_RC[ours, theirs]),
                stability=stability if found.resamplings else None,
            )
            for (ours, theirs), stability in zip(found.matching.pairs, found.stability_P, strict=True)
        ),
        gaps=tuple(_gap(gap, found.total, seed, resampled=found.resamplings > 0) for gap in found.gaps),
        similarity=tuple(tuple(round(float(value), 6) for value in row) for row in found.similarity_RC),
        gap_price=GAP_PRICE,
        total=total,
        matched=found.matched.mean(seed=seed, support=POSITIVE),
        control=None if found.control is None else float(found.control.values()),
        additivity=additive.mean,
        additivity_ci=additive.ci,
        classes=by_kind(found.total, seed=seed),
    )


def by_kind(sums: Sums, restored: Sums | None = None, *, seed: int) -> tuple[blocks.SiteClass, ...]:
    """How nats spread over kinds of token, where they were summed by these; `restored`: what is gained without."""
    made = []
    for name, one in sums.by_kind.items():
        tokens = int(one.bottom.sum())
        share = _over(one, sums, seed=seed, support=_SHARE)
        made.append(
            blocks.SiteClass(
                name=name,
                tokens=tokens,
                nats=one.mean(seed=seed, support=POSITIVE),
                share=share.mean,
                share_ci=share.ci,
                restored=None if restored is None else restored.by_kind[name].mean(seed=seed),
            )
        )
    return tuple(one for one in made if one.tokens)


def _over(top: Sums, *bottoms: Sums, seed: int, support: tuple[float, float] = POSITIVE) -> Mean:
    """Nats over the sum of others at the same positions."""
    found = Sums(top.clusters, ())
    found.top, found.bottom = top.top.copy(), sum((one.top for one in bottoms), np.zeros_like(top.top))
    return found.mean(seed=seed, support=support)


def _gap(damage: GapDamage, total: Sums, seed: int, *, resampled: bool) -> blocks.LayerGap:
    gap = damage.gap
    share = _over(damage.swapped, total, seed=seed)
    return blocks.LayerGap(
        at_reference=gap.after_reference,
        at_candidate=gap.after_candidate,
        layers=tuple(
            blocks.UnmatchedLayer(kind=one.kind, layer=one.layer, of=one.of, distance=one.distance, added=one.added)
            for one in damage.origins
        ),
        nats=damage.swapped.mean(seed=seed, support=POSITIVE),
        share=share.mean,
        share_ci=share.ci,
        saved=damage.saved.mean(seed=seed),
        similarity_before=damage.before,
        similarity_after=damage.after,
        stability=damage.stability if resampled else None,
        classes=by_kind(damage.swapped, damage.saved, seed=seed),
    )


def attention_block(
    found: AttentionShift, text: blocks.Measured, *, seed: int, check_cancelled: CheckCancelled = never_cancelled
) -> blocks.AttentionShift:
    """The block of attention. Raises what `check_cancelled` raises: intervals of many heads take seconds a figure."""
    hooked: _Hooked = {"seed": seed, "check_cancelled": check_cancelled}
    js, kl, tv = (over_heads(getattr(found, name)).means(support=_SUPPORTS[name], **hooked) for name in _DISTANCES)
    looks = [_looks(one, hooked) for one in (found.reference, found.candidate)]
    heads = _Heads.of(found, hooked)
    return blocks.AttentionShift(
        measured=text,
        layers=tuple(
            blocks.AttentionLayer(
                reference=ours,
                candidate=theirs,
                js=js[index],
                kl=kl[index],
                tv=tv[index],
                sink=_both(looks, "sink", index),
                entropy=_both(looks, "entropy", index),
                range=_both(looks, "reach", index),
                heads=tuple(heads.block(index, head) for head in range(found.js.shape[1])),
            )
            for index, (ours, theirs) in enumerate(found.pairs)
        ),
        js=_over_all(found.js).mean(seed=seed, support=POSITIVE),
        sink=blocks.BothMeans(
            reference=_over_all(found.reference.sink).mean(seed=seed, support=_SHARE),
            candidate=_over_all(found.candidate.sink).mean(seed=seed, support=_SHARE),
        ),
    )


def _looks(looks: Looks, hooked: _Hooked) -> dict[str, NDArray[Any]]:
    return {
        name: over_heads(getattr(looks, name)).means(support=_SUPPORTS[name], **hooked)
        for name in ("sink", "entropy", "reach")
    }


def _both(looks: list[dict[str, NDArray[Any]]], name: str, index: int) -> blocks.BothMeans:
    return blocks.BothMeans(reference=looks[0][name][index], candidate=looks[1][name][index])


@dataclass(frozen=True)
class _Heads:
    """Means of every head, (P, H) each: `distances` over the candidate's heads, `ours` over the reference's."""

    partner_PH: NDArray[np.intp]
    distances: dict[str, NDArray[Any]]
    ours: dict[str, NDArray[Any]]
    theirs: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, found: AttentionShift, hooked: _Hooked) -> _Heads:
        def means(of: AttentionShift | Looks, *names: str) -> dict[str, NDArray[Any]]:
            return {name: getattr(of, name).means(support=_SUPPORTS[name], **hooked) for name in names}

        ours, theirs = (means(looks, "sink", "entropy", "reach") for looks in (found.reference, found.candidate))
        return cls(found.partner_PH, means(found, *_DISTANCES), ours, theirs)

    def block(self, index: int, head: int) -> blocks.AttentionHead:
        """Of a head of the candidate."""
        partner = int(self.partner_PH[index, head])
        js, kl, tv = (self.distances[name][index, head] for name in _DISTANCES)

        def both(name: str) -> blocks.Both:
            ours, theirs = self.ours[name][index, partner], self.theirs[name][index, head]
            return blocks.Both(reference=ours.mean, reference_ci=ours.ci, candidate=theirs.mean, candidate_ci=theirs.ci)

        return blocks.AttentionHead(
            head=head,
            partner=partner,
            js=js,
            kl=kl.mean,
            kl_ci=kl.ci,
            tv=tv.mean,
            tv_ci=tv.ci,
            sink=both("sink"),
            entropy=both("entropy"),
            range=both("reach"),
        )


def _over_all(sums: Sums) -> Sums:
    found = Sums(sums.clusters, ())
    axes = tuple(range(1, sums.top.ndim))
    found.top, found.bottom = sums.top.sum(axes), sums.bottom.sum(axes)
    return found


def activations_block(
    found: ActivationErrors,
    text: blocks.Measured,
    repair: SelfRepair | None = None,
    repair_text: blocks.Measured | None = None,
    *,
    seed: int,
    check_cancelled: CheckCancelled = never_cancelled,
) -> blocks.ActivationGrowth:
    """The block of activations, with self-repair where it was measured. Raises what `check_cancelled` raises."""
    hooked: _Hooked = {"seed": seed, "check_cancelled": check_cancelled}
    relative, energy = (sums.means(support=POSITIVE, **hooked) for sums in (found.relative_B, found.energy_B))
    cosine = found.cosine_B.means(support=(-1.0, 1.0), **hooked)
    in_outliers = found.outlier_share_B.means(support=_SHARE, **hooked)
    fresh, carried, grown = (
        sums.means(rising=_root, support=POSITIVE, **hooked) for sums in (found.fresh_S, found.carried_S, found.grown_S)
    )
    effects: list[NDArray[Any] | None] = [None, None, None]
    if repair is not None:
        effects = [sums.means(support=POSITIVE, **hooked) for sums in (repair.direct_S, repair.final_S)]
        effects.append(repair.repaired_S.means(**hooked))
    direct, final, repaired = effects
    return blocks.ActivationGrowth(
        measured=text,
        borders=tuple(
            blocks.ActivationBorder(
                reference=ours,
                candidate=theirs,
                relative=relative[index],
                sqnr=_sqnr(energy[index]),
                cosine=cosine[index],
                outlier_channels=len(found.outliers_B[index]),
                outlier_share=in_outliers[index].mean,
                outlier_share_ci=in_outliers[index].ci,
                outliers=tuple(
                    blocks.OutlierChannel(channel=one.channel, ratio=one.ratio, error_share=one.error_share)
                    for one in found.outliers_B[index][:LISTED]
                ),
            )
            for index, (ours, theirs) in enumerate(found.borders)
        ),
        steps=tuple(
            blocks.ErrorStep(
                reference=step.reference,
                candidate=step.candidate,
                gap=step.gap,
                fresh=fresh[index],
                amplification=carried[index],
                growth=grown[index],
                direct=None if direct is None else direct[index],
                final=None if final is None else final[index],
                repaired=None if repaired is None else repaired[index],
            )
            for index, step in enumerate(found.steps)
        ),
        cascade=found.cascade.mean(seed=seed, rising=_root),
        repair_measured=repair_text,
    )


def _root(value: float) -> float:
    """Of a ratio of sums of squares, whose interval may reach below 0."""
    return math.sqrt(max(0.0, value))


def _sqnr(energy: Mean) -> Mean | None:
    """In dB, of Σ‖e‖² / Σ‖h‖²: the interval turns round; none where the energy's reaches 0."""
    if not energy.mean:
        return None
    ci = None if energy.ci is None or energy.ci[0] <= 0 else (sqnr(energy.ci[1]), sqnr(energy.ci[0]))
    return Mean(mean=sqnr(energy.mean), ci=ci, clusters=None if ci is None else energy.clusters)


def routing_block(
    found: RoutingShift, text: blocks.Measured, *, seed: int, check_cancelled: CheckCancelled = never_cancelled
) -> blocks.RoutingShift:
    """The block of routing. The load's shift is no mean: its interval is by percentiles of clusters drawn again. Raises
    what `check_cancelled` raises."""
    hooked: _Hooked = {"seed": seed, "check_cancelled": check_cancelled}
    supports = dict.fromkeys(("changed", "any_changed", "own"), _SHARE)
    supports |= dict.fromkeys(("divergence", "margin_changed", "margin_same"), POSITIVE)
    means = {name: getattr(found, name).means(support=support, **hooked) for name, support in supports.items()}
    shifts = _load_shifts(found, **hooked)
    ours, theirs = (sums.means(support=_SHARE, **hooked) for sums in (found.load_reference, found.load_candidate))
    return blocks.RoutingShift(
        measured=text,
        experts=found.experts,
        chosen=found.chosen,
        changed=_over_all(found.changed).mean(seed=seed, support=_SHARE),
        layers=tuple(
            blocks.RoutingLayer(
                layer=layer,
                **{name: means[name][index] for name in supports},
                load_shift=shifts[index],
                load_reference=tuple(load.mean for load in ours[index]),
                load_reference_ci=tuple(load.ci for load in ours[index]),
                load_candidate=tuple(load.mean for load in theirs[index]),
                load_candidate_ci=tuple(load.ci for load in theirs[index]),
            )
            for index, layer in enumerate(found.layers)
        ),
    )


def _draw(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """How often each cluster comes."""
    return np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)


def _load_shifts(found: RoutingShift, *, seed: int, check_cancelled: CheckCancelled) -> list[Mean]:
    clusters = found.changed.clusters
    shift_P = found.load_shift()
    if clusters.count < FEWEST_CLUSTERS:
        return [Mean(mean=float(shift), ci=None) for shift in shift_P]
    loads = [sums.top.reshape(clusters.count, -1).T for sums in (found.load_reference, found.load_candidate)]
    order = cluster_order(*loads)
    rng = np.random.default_rng(seed)
    draws = np.empty((DRAWS, len(shift_P)))
    for draw in draws:
        check_cancelled()
        weight_K = np.empty(clusters.count)
        weight_K[order] = _draw(rng, clusters.count)
        draw[:] = found.load_shift(weight_K)
    low_P, high_P = np.quantile(draws, [0.025, 0.975], axis=0)
    return [
        Mean(mean=float(shift), ci=(float(min(low, shift)), float(max(high, shift))), clusters=clusters.by)
        for shift, low, high in zip(shift_P, low_P, high_P, strict=True)
    ]
