"""The measured points of one knob as columns, in the order of their strength; what fits and limits are made of.

Names: P whole points (finite everywhere), D documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.models.strength import Order
from workers.analysis.threshold.documents import FEWEST_DOCUMENTS, DocumentLosses, Quantity
from workers.distributions.token_values import Ints
from workers.measuring.points.kernels import NO_KERNEL, Kernel
from workers.measuring.points.record import PointRecord, by_document

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredPoint:
    """One value of the knob: its place among all that were asked for, its s, what was measured, and what its kernels
    add."""

    index: int
    value: Any
    s: float | None
    record: PointRecord
    kernel: Kernel = NO_KERNEL


@dataclass(frozen=True)
class Course:
    """All points that were measured, weakest first. `document_W` is the document of each window of the text, `order`
    what the order of strength is; without one it is that of the points."""

    points: tuple[MeasuredPoint, ...]
    document_W: Ints
    order: Order | None = None

    @property
    def alone(self) -> bool:
        """Whether no order of strength is known, so that no limit is either."""
        return self.order is not None and self.order.kind == "unknown"

    def rank(self, point: MeasuredPoint) -> float:
        """How strong a point is by the order alone: equal of those that it does not tell apart."""
        if self.alone:
            return 0.0
        return float(self.points.index(point)) if point.s is None else point.s

    def by_damage(self) -> Course:
        """The points in the order of strength, and those that it does not tell apart from the least to the most damage
        measured: refused ones first, collapses last."""

        def damage(point: MeasuredPoint) -> tuple[float, bool, float]:
            mean = point.record.excess_kl
            upper = math.inf if mean is None else mean.ci[1] if mean.ci else mean.mean or 0.0
            return self.rank(point), not point.record.refused, upper if point.record.whole else math.inf

        return replace(self, points=tuple(sorted(self.points, key=damage)))

    @property
    def convex(self) -> bool:
        """Whether damage may be taken to grow ever faster along the points: the knob removes a share of the model."""
        return all(point.s is not None for point in self.points)

    @property
    def whole(self) -> tuple[MeasuredPoint, ...]:
        """Those that can stand in a curve."""
        return tuple(point for point in self.points if point.record.whole)

    def until_collapse(self) -> tuple[tuple[MeasuredPoint, ...], MeasuredPoint | None]:
        """The whole points that are weaker than the first one with logits that are not finite, and that one. What is
        beyond it is within no limit, however well it looks; settings that the model does not take are passed over."""
        measured = [point for point in self.points if not point.record.refused]
        first = next((place for place, point in enumerate(measured) if not point.record.whole), None)
        return tuple(measured[:first]), None if first is None else measured[first]

    @property
    def axis_kind(self) -> Literal["value", "s", "order"]:
        """What a place between two settings is reported in."""
        if self.alone or self._both_sides:
            return "order"
        if all(_is_number(point.value) for point in self.points):
            return "value"
        return "order" if any(point.s is None for point in self.points) else "s"

    @property
    def _both_sides(self) -> bool:
        """Whether values are below and above the one that changes nothing, so that they do not rise with strength."""
        neutral = None if self.order is None else self.order.neutral
        numbers = [float(point.value) for point in self.points if _is_number(point.value)]
        return neutral is not None and len(numbers) > 0 and min(numbers) < neutral < max(numbers)

    def axis(self, points: Sequence[MeasuredPoint]) -> list[float]:
        """The places of points on that axis."""
        kind = self.axis_kind
        if kind == "order":
            return [float(self.points.index(point) + 1) for point in points]
        return [float(point.value if kind == "value" else point.s or 0.0) for point in points]

    def clusters(self) -> Ints:
        """What is resampled: the document of each window, or the window itself where documents are too few."""
        few = len(np.unique(self.document_W)) < FEWEST_DOCUMENTS
        return np.arange(len(self.document_W)) if few else self.document_W

    def losses(self, points: Sequence[MeasuredPoint], quantity: Quantity) -> DocumentLosses:
        """Sums by cluster of whole points. Fewer than six clusters carry no interval: see `resampled`."""
        cluster_W = self.clusters()
        count = int(cluster_W.max()) + 1
        sums = [point.record.sums for point in points if point.record.sums is not None]
        tokens_D = by_document(sums[0].tokens, cluster_W, count)
        column = "loss" if quantity == "perplexity" else "kl"
        sum_PD = np.array([by_document(getattr(one, column), cluster_W, count) for one in sums])
        there = tokens_D > 0
        return DocumentLosses(sum_PD[:, there], tokens_D[there], quantity)

    def dense(self) -> Array:
        """The reference's losses by cluster, as `losses` has them."""
        sums = self.whole[0].record.sums
        assert sums is not None  # noqa: S101 - a whole point has them
        cluster_W = self.clusters()
        count = int(cluster_W.max()) + 1
        there = by_document(sums.tokens, cluster_W, count) > 0
        return by_document(sums.reference_loss, cluster_W, count)[there]

    def resampled(self, losses: DocumentLosses) -> bool:
        """Whether there are enough clusters for an interval."""
        return len(losses.tokens_D) >= FEWEST_DOCUMENTS


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
