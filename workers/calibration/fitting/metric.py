"""The geometry in which a hidden correction is fitted: directions by how much they vary and by how much they matter.

Near the optimum mean KL is quadratic: ½ E[δᵀ F δ] for a change δ of the hidden state, F the Fisher information of the
head,

    F = Wᵀ (diag E[q] − E[q qᵀ]) W        averaged over rows

and δ = M (h − μ) is large where h varies. So the map is held as M = Σ^(−1/2) N F^(−1/2), Σ the covariance of h, both
damped. In N the objective is round, and plain gradient steps are natural ones (Amari 1998; Kronecker-factored, Martens
and Grosse 2015). A penalty on N is one on the effect, and cutting the singular values of N is the best low-rank cut of
the effect.

Names: T rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.objective import CheckCancelled, Objective
from workers.calibration.reductions import Reductions, State
from workers.products import product

# Rows that the head's metric is averaged over.
_METRIC_ROWS = 2048
# Rows of hidden states, and of the head, that are taken to float32 at a time.
_ROWS = 4096
_HEAD_ROWS = 8192


@dataclass(frozen=True)
class Metric:
    """`mean_D` μ; `whiten_DD` Σ^(−1/2), its inverse, `unweigh_DD` F^(−1/2) and its inverse; float32."""

    mean_D: torch.Tensor
    whiten_DD: torch.Tensor
    unweigh_DD: torch.Tensor
    weigh_DD: torch.Tensor

    def whitened(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        """(h − μ) Σ^(−1/2)."""
        return (hidden_TD.to(self.mean_D.dtype) - self.mean_D) @ self.whiten_DD


def measure(
    data: FitData,
    objective: Objective,
    *,
    ridge: float,
    damping: float,
    seed: int,
    check_cancelled: CheckCancelled,
    reductions: Reductions,
) -> Metric:
    """The metric of some data; `ridge` and `damping` are shares of the mean eigenvalue, added to all."""
    dtype = torch.promote_types(data.candidate_TD.dtype, torch.float32)
    mean_D = objective.average(data, lambda some: some.candidate_TD.to(dtype).sum(dim=0), _ROWS, check_cancelled)
    covariance_DD = objective.average(
        data, lambda some: _outer(some.candidate_TD.to(dtype) - mean_D), _ROWS, check_cancelled
    )
    _, whiten_DD = _roots(covariance_DD, ridge)
    fisher_DD = _fisher(data.at_most(_METRIC_ROWS, seed), objective, dtype, check_cancelled, reductions)
    weigh_DD, unweigh_DD = _roots(fisher_DD, damping)
    return Metric(mean_D, whiten_DD, unweigh_DD, weigh_DD)


def _fisher(
    data: FitData,
    objective: Objective,
    dtype: torch.dtype,
    check_cancelled: CheckCancelled,
    reductions: Reductions,
) -> torch.Tensor:
    """F of the candidate's head, the soft cap's slope left out: a metric need not be exact."""
    weight_VD = objective.candidate.weight_VD

    def add(state: State, chunk: FitData) -> State:
        q_CV = torch.softmax(objective.candidate_logits(chunk.candidate_TD), dim=1)
        mean_CD = product(q_CV.to(weight_VD.dtype), weight_VD).to(dtype)
        return {
            "total_V": state["total_V"] + q_CV.sum(dim=0).to(dtype),
            "mean_TD": torch.cat([state["mean_TD"], mean_CD]),
        }

    size, width = weight_VD.shape
    start = {
        "total_V": torch.zeros(size, dtype=dtype, device=objective.device),
        "mean_TD": torch.zeros(0, width, dtype=dtype, device=objective.device),
    }
    found = reductions.of("fisher", start, objective.chunks(data, check_cancelled), add)
    total_V, mean_TD = found["total_V"], found["mean_TD"]
    within_DD = torch.zeros(width, width, dtype=dtype, device=objective.device)
    parts = (torch.split(whole, _HEAD_ROWS) for whole in (weight_VD, total_V))
    for rows_VD, rows_V in zip(*parts, strict=True):
        part_VD = rows_VD.to(dtype)
        within_DD += (part_VD * rows_V[:, None]).T @ part_VD
    fisher_DD = (within_DD - _outer(mean_TD)) / len(data)
    return fisher_DD * objective.candidate.scale**2


def _outer(rows_TD: torch.Tensor) -> torch.Tensor:
    return rows_TD.T @ rows_TD


def _roots(matrix_DD: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric square root of a damped covariance, and the inverse of it."""
    values_D, vectors_DD = torch.linalg.eigh((matrix_DD + matrix_DD.T) / 2)
    floor = max(damping * float(values_D.clamp(min=0).mean()), torch.finfo(values_D.dtype).tiny ** 0.5)
    values_D = values_D.clamp(min=0) + floor
    return (vectors_DD * values_D.sqrt()) @ vectors_DD.T, (vectors_DD * values_D.rsqrt()) @ vectors_DD.T
