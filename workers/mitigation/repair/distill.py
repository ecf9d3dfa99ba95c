"""Distillation of the adapter from the reference (`workers.mitigation.training`)."""

from collections.abc import Mapping
from typing import Any

import torch

from workers.mitigation.divergence import Divergence
from workers.mitigation.optimizer import Rate
from workers.mitigation.repair.adapter import Adapted
from workers.mitigation.repair.closed_form import Factors
from workers.mitigation.training import Training
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

RATE = 5e-4
# Nats a position from which on the rate is full. Adam's steps are as long where little is left to learn as where much
# is, and there they are noise: at 0.04 nats 200 steps at the full rate end above their beginning.
_FULL_RATE_NATS = 0.3
# Nats a position below which steps are in proportion to each factor, and their share of it. From 0.0372 nats on (RTN at
# 4 bits, rank 64) 24 such steps came to 0.0356, at three times the share to 0.0411, 24 of 2e-4 for all to 0.0373.
FINE_NATS = 0.05
FINE_RATE = 3e-3
FULL = Rate(RATE)


def rate_at(nats: float) -> Rate:
    """Adam's rate for an adapter that begins `nats` a position from the reference: ours, measured on rank 64. It is 0
    if nothing is left, which rounding may show as a little less than 0."""
    if 0 < nats < FINE_NATS:
        return Rate(FINE_RATE, relative=True)
    return Rate(RATE * min(1.0, max(0.0, nats) / _FULL_RATE_NATS))


class Distiller(Training):
    """A modified model with an adapter at work: `factors` by tensor name."""

    def __init__(
        self,
        skeleton: Skeleton,
        factors: Mapping[str, Factors],
        tokens_NL: torch.Tensor,
        states: Activations,
        divergence: Divergence,
        *,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        super().__init__(skeleton, tokens_NL, states, divergence, progress=progress, check_cancelled=check_cancelled)
        self._adapted: dict[str, Adapted] = {}
        for name, one in factors.items():
            path = name.removesuffix(".weight")
            parent, _, leaf = path.rpartition(".")
            module: Any = skeleton.model.get_submodule(parent)
            self._adapted[name] = Adapted(getattr(module, leaf), one)
            setattr(module, leaf, self._adapted[name])

    def put(self, factors: Mapping[str, Factors]) -> None:
        """Other factors of the same ranks."""
        with torch.no_grad():
            for name, one in factors.items():
                self._adapted[name].up_OR.copy_(one.up_OR)
                self._adapted[name].down_RI.copy_(one.down_RI)

    def factors(self) -> dict[str, Factors]:
        """As they are now; `gains_R` has no meaning any more and is 0."""
        return {
            name: Factors(one.up_OR.detach().clone(), one.down_RI.detach().clone(), torch.zeros(one.down_RI.shape[0]))
            for name, one in self._adapted.items()
        }

    def train(self, steps: int, *, seed: int, seconds: float | None = None, rate: Rate = FULL) -> int:
        """So many steps, or as many as `seconds` allow; returns how many were done."""
        trained = [factor for one in self._adapted.values() for factor in one.factors()]
        return self.descend(trained, steps, seed=seed, seconds=seconds, rate=rate)
