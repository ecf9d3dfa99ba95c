"""The recent window: what live traffic's divergence is now, with 95 % intervals clustered by request.

A request is a cluster: its tokens share a prompt. Means are per token (ratio of sums), intervals are those of
`workers.distributions.intervals`. Fewer than six requests get Student's t, one gets none.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import Interval, ServedDivergence, Version
from workers.distributions.intervals import Array, ratio_intervals

RESAMPLES = 2_000


class ScoredRequest(Contract):
    """Sums over the generated positions of one request; divergences in nats."""

    at: float
    version: Version = Field(description="what it was served with")
    tokens: int = Field(ge=1)
    raw: float = Field(ge=0)
    calibrated: float = Field(ge=0)
    engine: float | None = Field(default=None, ge=0, description="null: not known")
    top1_raw: int = Field(ge=0, description="positions where reference and raw model rank the same token first")
    top1_calibrated: int = Field(ge=0)


class WindowMemory(Contract):
    """The requests at hand, oldest first."""

    requests: tuple[ScoredRequest, ...] = ()


class RecentWindow(Contract):
    """The rule: the last `most` requests, none older than `most_age_s`."""

    most: int = Field(default=512, ge=2)
    most_age_s: float = Field(default=24 * 3600.0, gt=0)

    def start(self) -> WindowMemory:
        """Empty."""
        return WindowMemory()

    def add(self, memory: WindowMemory, request: ScoredRequest) -> WindowMemory:
        """With one more request; the oldest may go."""
        return self.at(WindowMemory.model_construct(requests=(*memory.requests, request)[-self.most :]), request.at)

    def at(self, memory: WindowMemory, now: float) -> WindowMemory:
        """Without those that are too old."""
        kept = tuple(request for request in memory.requests if now - request.at <= self.most_age_s)
        return WindowMemory.model_construct(requests=kept)

    def divergence(
        self, memory: WindowMemory, *, version: Version | None = None, seed: int = 0, resamples: int = RESAMPLES
    ) -> ServedDivergence | None:
        """Means and intervals over the window, of one served version or of all; None for fewer than two requests.

        The order in which the requests came does not matter.
        """
        chosen = sorted(
            (request for request in memory.requests if version is None or request.version == version),
            key=lambda request: (request.tokens, request.raw, request.calibrated),
        )
        if len(chosen) < 2:
            return None
        tokens_N = np.array([request.tokens for request in chosen], dtype=np.float64)
        raw_N = np.array([request.raw for request in chosen])
        calibrated_N = np.array([request.calibrated for request in chosen])
        raw, calibrated, saved = _intervals(
            np.stack([raw_N, calibrated_N, raw_N - calibrated_N]), tokens_N, seed=seed, resamples=resamples
        )
        known = [(request.engine, request.tokens) for request in chosen if request.engine is not None]
        engine = None
        if len(known) >= 2:
            sums_1N, counts_N = np.array([[nats for nats, _ in known]]), np.array([float(n) for _, n in known])
            engine = _not_negative(_intervals(sums_1N, counts_N, seed=seed, resamples=resamples)[0])
        tokens = sum(request.tokens for request in chosen)
        return ServedDivergence(
            raw=_not_negative(raw),
            calibrated=_not_negative(calibrated),
            engine=engine,
            saved=saved,
            top1_agreement_raw=sum(request.top1_raw for request in chosen) / tokens,
            top1_agreement_calibrated=sum(request.top1_calibrated for request in chosen) / tokens,
            requests=len(chosen),
            tokens=tokens,
        )


def _intervals(sums_QN: Array, counts_N: Array, *, seed: int, resamples: int) -> list[Interval]:
    mean_Q, _, low_Q, high_Q = ratio_intervals(sums_QN, counts_N[None], seed=seed, resamples=resamples)
    return [
        Interval(mean=float(mean), low=float(low), high=float(high))
        for mean, low, high in zip(mean_Q, low_Q, high_Q, strict=True)
    ]


def _not_negative(interval: Interval) -> Interval:
    return interval.model_copy(update={"low": max(interval.low, 0.0)})
