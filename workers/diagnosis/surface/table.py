"""The measured settings as a table: their losses by cluster, and all that is computed of them.

A point is in differences only where it is whole: finite at every position, so that all points have the same tokens.
One that is not, or that the model refuses, is beyond any level and on no path.

Two recipes may make the very same weights: pruning a tenth after rounding to three bits takes only zeros. The fewest
bytes in which weights can be stored are one number, whichever recipe made them, so such points count alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.kinds.surface.plan import Axis, Cell, axes_of
from app.kinds.surface.report import Contour, Interaction, Kind, Limit, Order, OrderEffect, PathStep
from app.kinds.surface.request import SurfaceRequest
from workers.diagnosis.surface import contour, path
from workers.diagnosis.surface.interaction import paired
from workers.distributions.intervals import Estimate
from workers.distributions.significance import LEVEL, holm
from workers.distributions.statistics import exponential
from workers.measuring.points.clusters import Clustered
from workers.measuring.points.kernels import Kernel
from workers.measuring.points.record import PointRecord, WindowSums
from workers.measuring.summary import as_mean

Array = NDArray[np.float64]
Within = Literal["yes", "no", "undecided"]
Place = tuple[int, int]
_TURNED: Final[tuple[Literal["first"], Literal["second"]]] = ("first", "second")


@dataclass(frozen=True)
class Table:
    """All points of a surface. `cells`, `records` and, where there are any, `kernels` belong together, by index."""

    request: SurfaceRequest
    cells: Sequence[Cell]
    records: Sequence[PointRecord]
    document_W: NDArray[np.integer]
    kernels: Sequence[Kernel] = ()

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        """The two knobs."""
        return axes_of(self.request)

    @cached_property
    def index(self) -> dict[tuple[int, int, Order], int]:
        """Which point a setting is."""
        return {(cell.first, cell.second, cell.order): index for index, cell in enumerate(self.cells)}

    @cached_property
    def clusters(self) -> Clustered:
        """Clusters of the tokens that all whole points share. Raises ValueError if no point is whole."""
        return Clustered.of(self.window_tokens.tolist(), self.document_W)

    @cached_property
    def window_tokens(self) -> NDArray[np.int64]:
        """Tokens of each window that all whole points share. Raises ValueError if no point is whole."""
        sums = next((sums for record in self.records if (sums := self._whole(record)) is not None), None)
        if sums is None:
            raise ValueError("no setting is finite at every position")
        return np.asarray(sums.tokens, dtype=np.int64)

    @staticmethod
    def _whole(record: PointRecord) -> WindowSums | None:
        return record.sums if record.whole else None

    def _sums(self, index: int, column: Callable[[WindowSums], Sequence[float]]) -> Array:
        """By cluster; NaN for a point that is not whole."""
        sums = self._whole(self.records[index])
        return np.full(self.clusters.counts_N.size, np.nan) if sums is None else self.clusters.sums(column(sums))

    @cached_property
    def losses(self) -> list[Array]:
        """−ln q(x) of each point, by cluster."""
        return [self._sums(index, lambda sums: sums.loss) for index in range(len(self.cells))]

    @cached_property
    def kls(self) -> list[Array]:
        """KL of each point, by cluster."""
        return [self._sums(index, lambda sums: sums.kl) for index in range(len(self.cells))]

    @cached_property
    def measured(self) -> list[Array]:
        """What the contour's level is of, on the scale on which it is a mean: nats."""
        measure = self.request.contour.measure
        if measure == "kl":
            return self.kls
        if measure == "perplexity":
            return self.losses
        reference = [self._sums(index, lambda sums: sums.reference_loss) for index in range(len(self.cells))]
        return [loss - base for loss, base in zip(self.losses, reference, strict=True)]

    @property
    def level(self) -> float:
        """The chosen loss on that scale."""
        level = self.request.level
        return level if self.request.contour.measure == "kl" else math.log(level)

    @property
    def growing(self) -> bool:
        """Whether the contour's measure grows by factors from setting to setting: KL, but not ln perplexity."""
        return self.request.contour.measure == "kl"

    # --- losses and interactions

    @cached_property
    def _estimates(self) -> dict[int, Estimate]:
        """What the contour's level is of, in nats, of each whole point by its index."""
        whole = [index for index, sums in enumerate(self.measured) if np.isfinite(sums).all()]
        found = self.clusters.estimates([self.measured[index] for index in whole], seed=self.request.seed)
        return dict(zip(whole, found, strict=True))

    @cached_property
    def loss_means(self) -> list[Mean]:
        """Each point's loss in the contour's measure; empty for points that are not whole."""
        means = [Mean(mean=None, ci=None)] * len(self.cells)
        for index, estimate in self._estimates.items():
            means[index] = self._in_measure(estimate)
        return means

    def _in_measure(self, estimate: Estimate) -> Mean:
        if self.request.contour.measure == "kl":
            return as_mean(estimate, (0.0, np.inf))
        return as_mean(estimate.mapped(exponential), (0.0, np.inf))

    def within(self, index: int) -> Within:
        """Whether a point's loss is within the chosen one, by its interval."""
        loss, level = self.loss_means[index], self.request.level
        if loss.mean is None:
            return "no"
        if loss.ci is None:
            return "undecided" if loss.mean <= level else "no"
        return "yes" if loss.ci[1] <= level else "no" if loss.ci[0] > level else "undecided"

    def interactions(self) -> tuple[Interaction, ...]:
        """Of every setting that turns both knobs and whose margins are whole, corrected together."""
        columns = [column for _, column in self._paired]
        seed, margin = self.request.seed, self.request.additive_margin
        means = self.clusters.means(columns, seed=seed)
        adjusted = holm(self.clusters.p_values(columns, seed=seed))
        return tuple(
            Interaction(
                first=cell.first,
                second=cell.second,
                order=cell.order,
                nats=mean,
                p=p,
                kind=_kind(mean, p, margin),
            )
            for (cell, _), mean, p in zip(self._paired, means, adjusted, strict=True)
        )

    @cached_property
    def _paired(self) -> list[tuple[Cell, Array]]:
        """I by cluster, of every setting that turns both knobs and whose margins are whole."""
        margins = {
            (cell.first, cell.second): self.losses[index]
            for index, cell in enumerate(self.cells)
            if cell.order == "as given"
        }
        rows = []
        for index, cell in enumerate(self.cells):
            if cell.first and cell.second:
                column = paired(margins, (cell.first, cell.second), self.losses[index])
                if np.isfinite(column).all():
                    rows.append((cell, column))
        return rows

    def order_effects(self) -> tuple[OrderEffect, ...]:
        """Reversed minus as given, of every setting that both orders measured whole."""
        pairs = []
        for index, cell in enumerate(self.cells):
            if cell.order == "reversed":
                given = self.index[cell.first, cell.second, "as given"]
                loss, kl = self.losses[index] - self.losses[given], self.kls[index] - self.kls[given]
                if np.isfinite(loss).all():
                    pairs.append((cell, loss, kl))
        seed = self.request.seed
        losses, kls = [loss for _, loss, _ in pairs], [kl for _, _, kl in pairs]
        rows = zip(
            pairs,
            self.clusters.means(losses, seed=seed),
            self.clusters.means(kls, seed=seed),
            holm(self.clusters.p_values(losses, seed=seed)),
            holm(self.clusters.p_values(kls, seed=seed)),
            strict=True,
        )
        return tuple(
            OrderEffect(first=cell.first, second=cell.second, log_perplexity=mean, kl=kl, p=p, p_kl=p_kl)
            for (cell, _, _), mean, kl, p, p_kl in rows
        )

    # --- contour

    def contour(self) -> Contour:
        """Limits of each knob at each setting of the other, and the line, in the order of steps as given."""
        found = [self._limit(turned, at) for turned in (0, 1) for at in range(len(self.axes[1 - turned].values))]
        return Contour(
            measure=self.request.contour.measure,
            level=self.request.level,
            limits=tuple(found),
            lines=contour.lines(self._table(), self.level, growing=self.growing),
        )

    def _table(self) -> Array:
        counts = self.clusters.counts_N.sum()
        table_PQ = np.full([len(axis.values) for axis in self.axes], np.nan)
        for index, cell in enumerate(self.cells):
            if cell.order == "as given":
                table_PQ[cell.first, cell.second] = self.measured[index].sum() / counts
        return table_PQ

    def _limit(self, turned: int, at: int) -> Limit:
        axis = self.axes[turned]
        row = [self.along(turned, at, place) for place in range(len(axis.values))]
        sums_PN = np.stack([self.measured[index] for index in row])
        loss_P = sums_PN.sum(axis=1) / self.clusters.counts_N.sum()
        place = contour.limit(loss_P, self.level, growing=self.growing)
        numbers = [axis.number(index) for index in range(len(axis.values))]
        numbered = None not in numbers
        # A gap has a straight line where both its ends are numbers: of ranks all but the one from the step left out.
        convex = np.array(
            [axis.removes and None not in numbers[max(0, index - 1) : index + 1] for index in range(len(numbers))]
        )
        ends = contour.resampled_limits(
            sums_PN, self.clusters.counts_N, self.level, seed=self.request.seed, growing=self.growing, convex=convex
        )
        if ends is not None:
            low_P, high_P = np.array([self._bounds(index) for index in row]).T
            early, late = contour.settings_limits(
                loss_P, low_P, high_P, self.level, growing=self.growing, convex=convex
            )
            ends = min(ends[0], early), max(ends[1], late)
        value = None if place is None else value_at(axis, place)
        inside = [index for index, which in enumerate(row) if self._inside(which)]
        first_out = next((index for index, which in enumerate(row) if not self._inside(which)), len(row))
        reached = [index for index in inside if index < first_out]
        return Limit(
            knob=_TURNED[turned],
            at=at,
            place=place,
            value=value,
            ci=None if ends is None else (_end(axis, ends[0], numbered), _end(axis, ends[1], numbered)),
            largest=reached[-1] if reached else None,
        )

    def _bounds(self, index: int) -> tuple[float, float]:
        """Of a point's own interval, in nats; NaN if it is not whole, infinite if it has no interval."""
        estimate = self._estimates.get(index)
        if estimate is None:
            return math.nan, math.nan
        return estimate.interval or (-math.inf, math.inf)

    def _inside(self, index: int) -> bool:
        mean = self.loss_means[index].mean
        return mean is not None and mean <= self.request.level

    def along(self, turned: int, at: int, place: int) -> int:
        """The point where one knob (0 or 1) is at `place` and the other at `at`."""
        first, second = (place, at) if turned == 0 else (at, place)
        return self.index[first, second, "as given"]

    # --- path and choice

    @cached_property
    def sized(self) -> list[PointRecord]:
        """The records, each with the fewest bytes that a point of its weights was counted with."""
        same: dict[str, list[PointRecord]] = {}
        for record in self.records:
            if record.weights_fingerprint is not None:
                same.setdefault(record.weights_fingerprint, []).append(record)
        return [_fewest(record, same.get(record.weights_fingerprint or "", [])) for record in self.records]

    def bytes(self, index: int) -> int:
        """Of a point, as the request counts them."""
        record = self.sized[index]
        sparse = self.request.storage == "sparse" and record.sparse_bytes is not None
        return int((record.sparse_bytes if sparse else record.bytes) or 0)

    def _plainness(self, index: int) -> tuple[int, bool, int, int]:
        cell = self.cells[index]
        return path.plainness(cell.first, cell.second, cell.order == "reversed")

    def _distinct(self, indices: Iterable[int]) -> list[int]:
        """The plainest of the points of the same weights, in the points' order."""
        found: dict[str | int, int] = {}
        for index in sorted(indices, key=self._plainness):
            found.setdefault(self.records[index].weights_fingerprint or index, index)
        return sorted(found.values())

    def path(self) -> tuple[PathStep, ...]:
        """From the largest to the smallest."""
        settings = [
            path.Setting(cell.first, cell.second, self.bytes(index), mean, cell.order == "reversed")
            for index, cell in ((index, self.cells[index]) for index in self._distinct(range(len(self.cells))))
            if (mean := self.loss_means[index].mean) is not None
        ]
        found = path.cheapest(settings)
        steps = []
        for setting in found:
            order: Order = "reversed" if setting.reversed else "as given"
            index = self.index[setting.first, setting.second, order]
            steps.append(
                PathStep(
                    first=setting.first,
                    second=setting.second,
                    order=order,
                    bytes=setting.bytes,
                    loss=self.loss_means[index],
                )
            )
        return tuple(steps)

    def changed(self) -> list[int]:
        """The whole points that do anything to the model."""
        return [index for index, cell in enumerate(self.cells) if cell.recipe and self.records[index].whole]

    def chosen(self) -> int:
        """The changed point of fewest bytes, of those that are within the chosen loss for sure.

        Of those that save next to nothing against each other it is the one that loses least. If none is within for
        sure, it is the whole changed point that loses least. The unmodified model loses nothing and is no answer.

        Raises ValueError if no changed point is whole.
        """

        def rank(index: int) -> tuple[float, ...]:
            return (self.loss_means[index].mean or 0.0, self.bytes(index), *self._plainness(index))

        changed = self._distinct(self.changed())
        sure = [index for index in changed if self.within(index) == "yes"]
        if sure:
            fewest = min(self.bytes(index) for index in sure)
            sure = [index for index in sure if not path.saves(fewest, self.bytes(index))]
        return min(sure or changed, key=rank)


def _fewest(record: PointRecord, same: Sequence[PointRecord]) -> PointRecord:
    sizes = {
        name: min(known)
        for name in ("bytes", "sparse_bytes", "bits_per_weight")
        if (known := [size for one in same if (size := getattr(one, name)) is not None])
    }
    return record.model_copy(update=sizes)


def _kind(nats: Mean, p: float | None, margin: float) -> Kind:
    if p is not None and p < LEVEL:
        return "compounds" if (nats.mean or 0.0) > 0 else "overlaps"
    inside = nats.ci is not None and -margin < nats.ci[0] and nats.ci[1] < margin
    return "additive_within_margin" if inside else "no_departure_shown"


def value_at(axis: Axis, place: float) -> float | None:
    """The knob's value between two settings, linear; None if one of them is no number."""
    low = math.floor(place)
    high = min(low + 1, len(axis.values) - 1)
    one, other = axis.number(low), axis.number(high)
    if one is None or (other is None and place > low):
        return None
    return one if other is None else one + (place - low) * (other - one)


def _end(axis: Axis, place: float, numbered: bool) -> Any:
    if math.isinf(place):
        return None
    return value_at(axis, place) if numbered else place
