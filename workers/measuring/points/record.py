"""One measured point: a recipe against the reference over the whole text.

Arrays end in W for windows and D for documents; sums are in nats over the usable positions of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from app.contracts.base import Contract
from app.contracts.distances import DISTANCES
from app.contracts.notice import Notice
from app.contracts.report import Count, Divergence, Mean, Perplexity, Severity, SeverityVerdict
from app.contracts.request import Thresholds
from app.files import write_atomically
from workers.distributions.intervals import Clusters
from workers.distributions.statistics import exponential, perplexity
from workers.distributions.token_values import Floats, Ints, Positions, TokenValues
from workers.measuring.summary import as_mean, distribution, usable
from workers.measuring.verdict import decide

Array = NDArray[np.float64]


class WindowSums(Contract):
    """Sums over the usable positions of each window of the corpus, in the corpus' order. Losses are −ln probability of
    the observed tokens, `kl` is KL(reference‖candidate)."""

    tokens: tuple[Count, ...]
    kl: tuple[float, ...]
    loss: tuple[float, ...]
    reference_loss: tuple[float, ...]


class PointRecord(Contract):
    """A measured point, or one that this model cannot take (`refused` says why, and the rest is empty)."""

    refused: str = ""
    refused_code: str = ""
    divergence: Divergence | None = None
    top1_agreement: Mean | None = None
    perplexity: Perplexity | None = None
    excess_kl: Mean | None = Field(default=None, description="mean KL minus the mean noise floor, nats per token")
    severity: Severity | None = None
    classes: tuple[Severity, ...] = ()
    decision: SeverityVerdict | None = None
    nonfinite_positions: Count = 0
    sums: WindowSums | None = None
    weights_fingerprint: str | None = None
    bytes: Count | None = None
    bits_per_weight: float | None = None
    sparse_bytes: Count | None = Field(default=None, description="where zeros of pruned weights are not stored")
    scheme: str | None = None
    seconds_making: Annotated[float, Field(ge=0)] = 0.0
    seconds_measuring: Annotated[float, Field(ge=0)] = 0.0
    warnings: tuple[Notice, ...] = ()
    by: str = Field(default="", description="which process measured it")
    measured_at: float = Field(default=0.0, description="Unix time; shows which point came first, no more")

    @property
    def whole(self) -> bool:
        """Whether it can stand in a curve: measured, and finite at every position."""
        return self.sums is not None and self.nonfinite_positions == 0

    def save(self, file: Path) -> None:
        """Puts it there whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, self.model_dump_json().encode())

    @classmethod
    def load(cls, file: Path) -> PointRecord | None:
        """What `save` left; None if nothing sound is there."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None


def summed(values: TokenValues, where: Positions, windows: int) -> WindowSums:
    """Sums of a point's values, which stand at `where`, over each of the corpus' windows."""
    mask = usable(values)
    window = np.asarray(where.window)[mask]

    def total(column: Floats) -> tuple[float, ...]:
        sums_W = np.bincount(window, weights=column.astype(np.float64)[mask], minlength=windows)
        return tuple(float(value) for value in sums_W)

    return WindowSums(
        tokens=tuple(int(count) for count in np.bincount(window, minlength=windows)),
        kl=total(values.kl),
        loss=total(-values.logp_candidate),
        reference_loss=total(-values.logp_reference),
    )


def record_of(
    values: TokenValues,
    where: Positions,
    windows: int,
    *,
    floor: float,
    thresholds: Thresholds,
    seed: int,
) -> PointRecord:
    """Everything that is reported of one point. `floor` is the mean noise floor in nats."""
    mask = usable(values)
    found, place = values.select(mask), where.select(mask)
    nonfinite = int(np.count_nonzero(~mask))
    if not len(found):
        verdict = decide(None, thresholds, nonfinite=nonfinite)
        return PointRecord(
            severity=verdict.severity,
            classes=verdict.classes,
            decision=verdict,
            nonfinite_positions=nonfinite,
            sums=summed(values, where, windows),
        )
    kl = found.kl.astype(np.float64)
    log_ratio = found.logp_reference.astype(np.float64) - found.logp_candidate.astype(np.float64)
    if not kl.any():  # both runs rounded alike, to the last bit: there is no noise to take off
        floor = 0.0
    columns = [kl - floor, found.top1_agree.astype(np.float64), log_ratio]
    excess, top1, ratio = Clusters.at(place).means(columns, seed=seed)
    verdict = decide(excess, thresholds, nonfinite=nonfinite)
    blocks = {
        of.name: distribution(getattr(found, of.name), place, unit=of.unit, support=of.bounds, seed=seed)
        for of in DISTANCES
    }
    return PointRecord(
        divergence=Divergence(**blocks),
        top1_agreement=as_mean(top1, (0.0, 1.0)),
        perplexity=Perplexity(
            reference=_finite(perplexity(found.logp_reference)),
            candidate=_finite(perplexity(found.logp_candidate)),
            ratio=as_mean(ratio.mapped(exponential), (0.0, np.inf)),
        ),
        excess_kl=as_mean(excess),
        severity=verdict.severity,
        classes=verdict.classes,
        decision=verdict,
        nonfinite_positions=nonfinite,
        sums=summed(values, where, windows),
    )


def by_document(sums_W: Sequence[float], document_W: Ints, documents: int) -> Array:
    """Sums by document (D,) from sums by window; `document_W` is the document of each window."""
    return np.bincount(document_W, weights=np.asarray(sums_W, dtype=np.float64), minlength=documents).astype(np.float64)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
