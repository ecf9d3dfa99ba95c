"""From per-token values to the blocks of a report: means with intervals, order statistics, slices.

Positions whose logits are not finite are counted and left out of everything else. Every slice picks its own clusters,
so a domain of few documents is clustered by windows, and says so.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.distances import DISTANCES
from app.contracts.report import (
    Agreement,
    BandedSlice,
    Blocks,
    DeltaP,
    Distribution,
    Divergence,
    DomainReport,
    Entropy,
    Histogram,
    Mean,
    Perplexity,
    Slice,
)
from workers.distributions.intervals import Clusters, Estimate
from workers.distributions.statistics import exponential, histogram, order_statistics, perplexity, root_mean_square
from workers.distributions.token_values import Positions, TokenValues

Array = NDArray[np.float64]

CONFIDENCE_EDGES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
FIRST_POSITION_EDGES = (0, 16, 64, 256)


class Support(NamedTuple):
    """The values that a quantity can take."""

    low: float
    high: float


_NONNEGATIVE = Support(0.0, math.inf)
_SHARE = Support(0.0, 1.0)
_REAL = Support(-math.inf, math.inf)

# Names here are those of the functions below, not of the report.
_SUPPORTS: Mapping[str, Support] = {
    **{distance.name: Support(*distance.bounds) for distance in DISTANCES},
    "delta_p": Support(-1.0, 1.0),
    "top1": _SHARE,
    "top5_overlap": _SHARE,
    "top10_overlap": _SHARE,
    "expected_rank": Support(1.0, math.inf),
    "entropy_reference": _NONNEGATIVE,
    "entropy_candidate": _NONNEGATIVE,
    "log_ratio": _REAL,
    "excess": _REAL,
}
# All but the excess over the noise floor, which is the verdict's and of the whole alone.
_OF_DOMAIN = tuple(name for name in _SUPPORTS if name != "excess")
_OF_SLICE = (*(distance.name for distance in DISTANCES), "top1", "log_ratio")


@dataclass(frozen=True)
class Summary:
    """The blocks of a report that follow from per-token values; `blocks` names them as the report does.

    `excess` is the mean KL beyond the noise floor at the same positions, None if no position is finite. `floor` is
    the mean of that floor over the positions at which it was measured, None if it was given as a single number.
    """

    tokens: int
    documents: int
    windows: int
    divergence: Divergence
    delta_p: DeltaP
    perplexity: Perplexity
    top1_agreement: Mean
    agreement: Agreement
    entropy: Entropy
    domains: dict[str, DomainReport]
    by_position: tuple[BandedSlice, ...]
    by_confidence: tuple[BandedSlice, ...]
    histogram: Histogram
    nonfinite_positions: int
    excess: Estimate | None
    floor: Estimate | None

    def blocks(self) -> dict[str, Any]:
        """The fields of a compare job's report that stand in here."""
        return {name: value for name, value in vars(self).items() if name not in ("excess", "floor")}

    def common(self) -> dict[str, Any]:
        """The fields of `Blocks`."""
        return {name: getattr(self, name) for name in Blocks.model_fields}

    def of_report(self) -> dict[str, Any]:
        """The fields of `Blocks`, and how much was scored: what a report on one candidate holds."""
        return {"tokens": self.tokens, "documents": self.documents, "windows": self.windows} | self.common()


def summarize(
    values: TokenValues,
    positions: Positions,
    domains: Sequence[str],
    *,
    window: int,
    floor_kl: ArrayLike = 0.0,
    seed: int = 0,
    context: int | None = None,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Summary:
    """Everything that a report says of `values`, which stand at `positions`.

    `domains` holds the domain of each document index; `window` is the length of the windows. `floor_kl` is the noise
    floor in nats: one number, or a value for each position, NaN if it was not measured (there the mean of the
    others). Nothing is taken off where KL is exactly 0 at every position. `context` is the reference's context where
    windows are longer: a band of positions ends there. `check_cancelled` is called before each slice and may raise.
    Raises ValueError if lengths differ or there is no position at all."""
    if len(values) == 0:
        raise ValueError("there is no scored position to summarize")
    if len(positions) != len(values):
        raise ValueError(f"{len(positions)} positions for {len(values)} values")
    finite = usable(values)
    floor = _per_position(floor_kl, len(values))
    if not np.any(values.kl[finite]):  # both runs rounded alike, to the last bit: there is no noise to take off
        floor = np.zeros(len(values))
    everything = _Scored.of(values, positions, floor, check_cancelled)
    scored = everything.select(finite)
    every = scored.means(tuple(_SUPPORTS), seed)
    return Summary(
        tokens=len(values),
        documents=np.unique(positions.document).size,
        windows=np.unique(positions.window).size,
        divergence=scored.divergence(every),
        delta_p=scored.delta_p(every),
        perplexity=scored.perplexity(every),
        top1_agreement=_mean(every, "top1"),
        agreement=_agreement(every),
        entropy=_entropy(every),
        domains=_domains(scored, positions, domains, finite, seed),
        by_position=tuple(_bands(scored, scored.positions.context, _position_edges(window, context), seed)),
        by_confidence=tuple(_bands(scored, scored.confidence, CONFIDENCE_EDGES, seed)),
        histogram=histogram(scored.columns["kl"]),
        nonfinite_positions=int(np.count_nonzero(~finite)),
        excess=every.get("excess"),
        floor=_floor(floor_kl, positions, seed),
    )


def usable(values: TokenValues) -> NDArray[np.bool_]:
    """Positions that statistics are over: both logit rows were finite, and so is everything that was made of them."""
    mask = values.finite.copy()
    for column in vars(values).values():
        if column.dtype.kind == "f":
            mask &= np.isfinite(column)
    return mask


def slices(
    values: TokenValues,
    positions: Positions,
    masks: Sequence[NDArray[np.bool_]],
    *,
    seed: int = 0,
    check_cancelled: Callable[[], None] = lambda: None,
) -> list[Slice]:
    """A slice for each mask over `values`; positions that are not finite are left out."""
    finite = usable(values)
    scored = _Scored.of(values, positions, np.zeros(len(values)), check_cancelled)
    return [Slice(**_slice(scored.select(mask & finite), seed)) for mask in masks]


def distribution(
    values: ArrayLike,
    where: Positions,
    *,
    unit: Literal["nats", "probability"] = "nats",
    support: tuple[float, float] = _NONNEGATIVE,
    seed: int = 0,
) -> Distribution:
    """Mean, interval and order statistics of any per-token value, such as the noise floor or the kernel term.

    Values that are not finite are left out."""
    column = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(column)
    column = column[finite]
    if column.size == 0:
        return _distribution(column, None, Support(*support), unit)
    (found,) = Clusters.at(where.select(finite)).means([column], seed=seed)
    return _distribution(column, found, Support(*support), unit)


def as_mean(estimate: Estimate | None, support: tuple[float, float] = _REAL) -> Mean:
    """An estimate as the report writes it, its interval cut to `support`."""
    if estimate is None:
        return Mean(mean=None, ci=None)
    cut = estimate.within(*support)
    finite = cut.interval is not None and all(math.isfinite(limit) for limit in cut.interval)
    return Mean(
        mean=cut.mean if math.isfinite(cut.mean) else None,
        ci=cut.interval if finite else None,
        clusters=cut.by if finite else None,
    )


@dataclass(frozen=True)
class _Scored:
    """Finite positions and, as float64 columns, every quantity of which a mean is taken."""

    positions: Positions
    columns: Mapping[str, Array]
    logp_reference: Array
    logp_candidate: Array
    confidence: Array
    check_cancelled: Callable[[], None]

    @classmethod
    def of(
        cls, values: TokenValues, positions: Positions, floor_T: Array, check_cancelled: Callable[[], None]
    ) -> "_Scored":
        def double(column: NDArray[Any]) -> Array:
            return column.astype(np.float64)

        reference, candidate = double(values.logp_reference), double(values.logp_candidate)
        # What is not finite is masked out later; until then its arithmetic may say what it likes.
        with np.errstate(invalid="ignore", over="ignore"):
            columns = {
                **{distance.name: double(getattr(values, distance.name)) for distance in DISTANCES},
                "delta_p": values.delta_p,
                "top1": double(values.top1_agree),
                "top5_overlap": double(values.overlap5) / 5,
                "top10_overlap": double(values.overlap10) / 10,
                "expected_rank": double(values.rank_of_reference_top),
                "entropy_reference": double(values.entropy_reference),
                "entropy_candidate": double(values.entropy_candidate),
                "log_ratio": reference - candidate,
                "excess": double(values.kl) - floor_T,
            }
        confidence = double(values.top_probability_reference)
        return cls(positions, columns, reference, candidate, confidence, check_cancelled)

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, mask: NDArray[np.bool_]) -> "_Scored":
        """The positions of a mask."""
        return _Scored(
            self.positions.select(mask),
            {name: column[mask] for name, column in self.columns.items()},
            self.logp_reference[mask],
            self.logp_candidate[mask],
            self.confidence[mask],
            self.check_cancelled,
        )

    def means(self, names: Sequence[str], seed: int) -> dict[str, Estimate]:
        """Estimates by name; none of no positions."""
        self.check_cancelled()
        if len(self) == 0:
            return {}
        estimates = Clusters.at(self.positions).means([self.columns[name] for name in names], seed=seed)
        return dict(zip(names, estimates, strict=True))

    def divergence(self, means: Mapping[str, Estimate]) -> Divergence:
        """Every distance in full."""
        return Divergence(**{of.name: self._distribution(means, of.name, of.unit) for of in DISTANCES})

    def perplexity(self, means: Mapping[str, Estimate]) -> Perplexity:
        """Both perplexities, and their ratio from the paired difference of log-probabilities."""
        return Perplexity(
            reference=_number(perplexity(self.logp_reference)) if len(self) else None,
            candidate=_number(perplexity(self.logp_candidate)) if len(self) else None,
            ratio=_ratio(means),
        )

    def delta_p(self, means: Mapping[str, Estimate]) -> DeltaP:
        """The change of the observed token's probability in full."""
        column = self.columns["delta_p"]
        order = order_statistics(column)
        names = ("min", "p001", "p01", "p05", "p10", "median", "p90", "p95", "p99", "p999", "max")
        return DeltaP(
            **(dict(_mean(means, "delta_p")) | {name: order.get(name) for name in names}),
            rms=root_mean_square(column) if column.size else None,
            unit="probability",
        )

    def _distribution(
        self, means: Mapping[str, Estimate], name: str, unit: Literal["nats", "probability"]
    ) -> Distribution:
        return _distribution(self.columns[name], means.get(name), _SUPPORTS[name], unit)


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _mean(means: Mapping[str, Estimate], name: str) -> Mean:
    return as_mean(means.get(name), _SUPPORTS[name])


def _ratio(means: Mapping[str, Estimate]) -> Mean:
    found = means.get("log_ratio")
    return as_mean(None if found is None else found.mapped(exponential))


def _agreement(means: Mapping[str, Estimate]) -> Agreement:
    return Agreement(
        top1=_mean(means, "top1"),
        top5_overlap=_mean(means, "top5_overlap"),
        top10_overlap=_mean(means, "top10_overlap"),
        expected_rank=_mean(means, "expected_rank"),
    )


def _entropy(means: Mapping[str, Estimate]) -> Entropy:
    return Entropy(reference=_mean(means, "entropy_reference"), candidate=_mean(means, "entropy_candidate"))


def _distribution(
    column: Array, estimate: Estimate | None, support: Support, unit: Literal["nats", "probability"]
) -> Distribution:
    order = order_statistics(column)
    names = ("median", "p90", "p95", "p99", "p999", "min", "max")
    return Distribution(**(dict(as_mean(estimate, support)) | {name: order.get(name) for name in names}), unit=unit)


def _domains(
    scored: _Scored, positions: Positions, domains: Sequence[str], finite: NDArray[np.bool_], seed: int
) -> dict[str, DomainReport]:
    """One report a domain, in order of first appearance; a domain without a finite position has counts alone."""
    names = np.asarray(domains, dtype=object)
    found: dict[str, DomainReport] = {}
    for name in dict.fromkeys(names[np.unique(positions.document)].tolist()):
        part = scored.select(names[scored.positions.document] == name)
        means = part.means(_OF_DOMAIN, seed)
        found[name] = DomainReport(
            tokens=len(part),
            documents=np.unique(part.positions.document).size,
            nonfinite_positions=int(np.count_nonzero(~finite & (names[positions.document] == name))),
            divergence=part.divergence(means),
            top1_agreement=_mean(means, "top1"),
            perplexity=part.perplexity(means),
            delta_p=part.delta_p(means),
            agreement=_agreement(means),
            entropy=_entropy(means),
        )
    return found


def _position_edges(window: int, context: int | None = None) -> tuple[int, ...]:
    """0, 16, 64, 256, then doubling, up to the window's length; and where the reference's context ends."""
    edges = list(FIRST_POSITION_EDGES)
    while edges[-1] < window:
        edges.append(2 * edges[-1])
    if context is not None:
        edges = sorted({*edges, context})
    return (*(edge for edge in edges if edge < window), window)


def _bands(scored: _Scored, of: NDArray[Any], edges: Sequence[float], seed: int) -> Iterator[BandedSlice]:
    """A slice for each band that holds a position; the last one is closed above."""
    band = np.clip(np.searchsorted(np.asarray(edges), of, side="right") - 1, 0, len(edges) - 2)
    for number, (low, high) in enumerate(pairwise(edges)):
        part = scored.select(band == number)
        if len(part) == 0:
            continue
        yield BandedSlice(low=float(low), high=float(high), share=len(part) / len(scored), **_slice(part, seed))


def _slice(part: _Scored, seed: int) -> dict[str, Any]:
    """The fields of a `Slice`."""
    means = part.means(_OF_SLICE, seed)
    return {
        "tokens": len(part),
        "documents": np.unique(part.positions.document).size,
        **{distance.name: _mean(means, distance.name) for distance in DISTANCES},
        "top1_agreement": _mean(means, "top1"),
        "perplexity_ratio": _ratio(means),
    }


def _per_position(floor_kl: ArrayLike, length: int) -> Array:
    """The floor at each position."""
    floor = np.asarray(floor_kl, dtype=np.float64)
    if floor.ndim == 0:
        return np.full(length, float(floor))
    if floor.shape != (length,):
        raise ValueError(f"the noise floor has shape {floor.shape}, ({length},) is needed")
    measured = np.isfinite(floor)
    if not measured.any():
        raise ValueError("the noise floor was measured nowhere")
    return np.where(measured, floor, floor[measured].mean())


def _floor(floor_kl: ArrayLike, positions: Positions, seed: int) -> Estimate | None:
    """The floor's own mean and spread, over the positions at which it was measured."""
    floor = np.asarray(floor_kl, dtype=np.float64)
    if floor.ndim == 0:
        return None
    measured = np.isfinite(floor)
    return Clusters.at(positions.select(measured)).means([floor[measured]], seed=seed)[0]
