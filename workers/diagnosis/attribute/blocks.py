"""From what was summed up to the blocks of a report: means with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import attribute_blocks as blocks
from app.contracts.report import Mean
from workers.diagnosis.attribute.activations import ActivationErrors, SelfRepair, sqnr
from workers.diagnosis.attribute.alignment import Alignment, GapDamage
from workers.diagnosis.attribute.attention import AttentionShift, Looks, over_heads
from workers.diagnosis.attribute.matching import GAP_PRICE
from workers.diagnosis.attribute.moe import RoutingShift
from workers.diagnosis.attribute.sums import Sums

# Outlier channels that a border lists; the others are counted.
LISTED = 5
# Draws for figures whose interval is by percentiles.
DRAWS = 1000


def measured(tokens: tuple[int, int], documents: Sequence[int] | NDArray[Any]) -> blocks.Measured:
    """Of windows of one length, (N, L)."""
    return blocks.Measured(
        windows=tokens[0], tokens=tokens[0] * tokens[1], documents=int(np.unique(np.asarray(documents)).size)
    )


def alignment_block(found: Alignment, text: blocks.Measured) -> blocks.LayerAlignment:
    """The block of an alignment."""
    total = found.total.mean()
    parts = [gap.swapped for gap in found.gaps] + [found.matched]
    known = [part for part in parts if part is not None]
    additive = _over(found.total, *known) if len(known) == len(parts) else Mean(mean=None, ci=None)
    rows, columns = found.similarity_RC.shape
    return blocks.LayerAlignment(
        measured=text,
        reference_layers=rows,
        candidate_layers=columns,
        pairs=tuple(
            blocks.LayerPair(
                reference=ours,
                candidate=theirs,
                similarity=float(found.similarity_RC[ours, theirs]),
                stability=stability,
            )
            for (ours, theirs), stability in zip(found.matching.pairs, found.stability_P, strict=True)
        ),
        gaps=tuple(_gap(gap, found.total) for gap in found.gaps),
        similarity=tuple(tuple(round(float(value), 6) for value in row) for row in found.similarity_RC),
        gap_price=GAP_PRICE,
        total=total,
        matched=None if found.matched is None else found.matched.mean(),
        control=None if found.control is None else float(found.control.values()),
        additivity=additive.mean,
        additivity_ci=additive.ci,
    )


def _over(top: Sums, *bottoms: Sums) -> Mean:
    """Nats over the sum of others at the same positions."""
    found = Sums(top.clusters, ())
    found.top, found.bottom = top.top.copy(), sum((one.top for one in bottoms), np.zeros_like(top.top))
    return found.mean()


def _gap(damage: GapDamage, total: Sums) -> blocks.LayerGap:
    gap = damage.gap
    nats = None if damage.swapped is None else damage.swapped.mean()
    share = Mean(mean=None, ci=None) if damage.swapped is None else _over(damage.swapped, total)
    return blocks.LayerGap(
        at_reference=gap.after_reference,
        at_candidate=gap.after_candidate,
        layers=tuple(
            blocks.UnmatchedLayer(kind=one.kind, layer=one.layer, of=one.of, distance=one.distance, added=one.added)
            for one in damage.origins
        ),
        nats=nats,
        share=share.mean,
        share_ci=share.ci,
        saved=None if damage.saved is None else damage.saved.mean(),
        similarity_before=damage.before,
        similarity_after=damage.after,
        stability=damage.stability,
    )


def attention_block(found: AttentionShift, text: blocks.Measured) -> blocks.AttentionShift:
    """The block of attention."""
    js, kl, tv = (over_heads(sums).means() for sums in (found.js, found.kl, found.tv))
    looks = [_looks(one) for one in (found.reference, found.candidate)]
    heads_js = found.js.means()
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
                heads=tuple(_head(found, index, head, heads_js[index, head]) for head in range(found.js.shape[1])),
            )
            for index, (ours, theirs) in enumerate(found.pairs)
        ),
        js=_over_all(found.js).mean(),
        sink=blocks.BothMeans(
            reference=_over_all(found.reference.sink).mean(), candidate=_over_all(found.candidate.sink).mean()
        ),
    )


def _looks(looks: Looks) -> dict[str, NDArray[Any]]:
    return {name: over_heads(getattr(looks, name)).means() for name in ("sink", "entropy", "reach")}


def _both(looks: list[dict[str, NDArray[Any]]], name: str, index: int) -> blocks.BothMeans:
    return blocks.BothMeans(reference=looks[0][name][index], candidate=looks[1][name][index])


def _head(found: AttentionShift, index: int, head: int, js: Mean) -> blocks.AttentionHead:
    partner = int(found.partner_PH[index, head])

    def both(name: str) -> blocks.Both:
        ours, theirs = getattr(found.reference, name), getattr(found.candidate, name)
        return blocks.Both(reference=_at(ours, index, partner), candidate=_at(theirs, index, head))

    return blocks.AttentionHead(
        head=head,
        partner=partner,
        js=js,
        kl=_at(found.kl, index, head),
        tv=_at(found.tv, index, head),
        sink=both("sink"),
        entropy=both("entropy"),
        range=both("reach"),
    )


def _at(sums: Sums, *index: int) -> float | None:
    top, bottom = (float(part.sum(0)[index]) for part in (sums.top, sums.bottom))
    return top / bottom if bottom > 0 else None


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
) -> blocks.ActivationGrowth:
    """The block of activations, with self-repair where it was measured."""
    relative, cosine, energy = (sums.means() for sums in (found.relative_B, found.cosine_B, found.energy_B))
    fresh, carried, grown = (sums.means(rising=_root) for sums in (found.fresh_S, found.carried_S, found.grown_S))
    effects: list[NDArray[Any] | None] = [None, None, None]
    if repair is not None:
        effects = [sums.means() for sums in (repair.direct_S, repair.final_S, repair.repaired_S)]
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
                outlier_share=found.outlier_share_B[index],
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
        cascade=found.cascade.mean(rising=_root),
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


def routing_block(found: RoutingShift, text: blocks.Measured, *, seed: int = 0) -> blocks.RoutingShift:
    """The block of routing. The load's shift is no mean: its interval is by percentiles of clusters drawn anew."""
    names = ("changed", "any_changed", "own", "divergence", "margin_changed", "margin_same")
    means = {name: getattr(found, name).means() for name in names}
    shifts = _load_shifts(found, seed)
    loads = [sums.values() for sums in (found.load_reference, found.load_candidate)]
    return blocks.RoutingShift(
        measured=text,
        experts=found.experts,
        chosen=found.chosen,
        changed=_over_all(found.changed).mean(),
        layers=tuple(
            blocks.RoutingLayer(
                layer=layer,
                **{name: means[name][index] for name in names},
                load_shift=shifts[index],
                load_reference=tuple(float(load) for load in loads[0][index]),
                load_candidate=tuple(float(load) for load in loads[1][index]),
            )
            for index, layer in enumerate(found.layers)
        ),
    )


def _draw(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """How often each cluster comes."""
    return np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)


def _load_shifts(found: RoutingShift, seed: int) -> list[Mean]:
    clusters = found.changed.clusters
    shift_P = found.load_shift()
    if clusters.count < 2:
        return [Mean(mean=float(shift), ci=None) for shift in shift_P]
    rng = np.random.default_rng(seed)
    draws = np.array([found.load_shift(_draw(rng, clusters.count)) for _ in range(DRAWS)])
    low_P, high_P = np.quantile(draws, [0.025, 0.975], axis=0)
    return [
        Mean(mean=float(shift), ci=(float(min(low, shift)), float(max(high, shift))), clusters=clusters.by)
        for shift, low, high in zip(shift_P, low_P, high_P, strict=True)
    ]
