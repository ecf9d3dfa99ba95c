"""Fit of a gated mixture: expectation maximization of a mixture of regressions in the KL's own metric.

With y and x as in `hidden.py`, expert k predicts x N_k + n_k, the gate g(f) says how much of a row is its own (Jordan
and Jacobs, Hierarchical mixtures of experts, 1994):

    E   r_tk ∝ g_tk exp(−½ |y_t − x_t N_k − n_k|² / σ²)
    M   N_k, n_k: ridge regression with weights r, pulled towards the one map of all rows;
        W: a few Newton steps of the multinomial logistic regression of r on the features

The rounds need no product with the head. The state with the lowest KL on the stop set is kept; then the scales of the
experts' logits are fitted to KL by Newton steps (`logits.fit_scales`).

Names: T rows, D hidden size, F features, K experts, R rank of an expert.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.hidden import State, Watch, fit_lowrank
from workers.calibration.fitting.logits import Fixed, fit_scales
from workers.calibration.fitting.metric import Metric, measure
from workers.calibration.fitting.objective import CheckCancelled, Objective
from workers.calibration.fitting.spec import Settings
from workers.calibration.reductions import Reductions
from workers.calibrators.base import Base
from workers.calibrators.features import CLASSES, features
from workers.calibrators.mixture import Mixture, entropy
from workers.calibrators.protocol import RowContext

_ROUNDS = 4
# Rows that the entropy probe is fitted to.
_PROBE_ROWS = 4096
# Pull of an expert towards the map of all rows, in rows' worth of whitened Gram matrix.
_PULL = 1.0
_LOGISTIC_STEPS = 60


def fit_mixture(
    objective: Objective, data: FitData, settings: Settings, *, seed: int, watch: Watch
) -> tuple[Base, bool]:
    """The mixture, or the single low-rank map where no mixture did better on the stop set.

    ValueError without token classes (`FitData.class_V`).
    """
    if data.class_V is None:
        raise ValueError("a mixture needs the classes of the tokens")
    if data.reference_TD.shape[1] != data.candidate_TD.shape[1]:
        raise ValueError("a mixture needs models of one width")
    single, early = fit_lowrank(objective, data, settings, seed=seed, watch=watch)
    best: Base = single
    best_kl = watch.look(lambda: single, settings.epochs + 1)
    reductions = watch.reductions.at("mixture")
    metric = measure(
        data,
        objective,
        ridge=settings.ridge,
        damping=settings.damping,
        seed=seed,
        check_cancelled=watch.check_cancelled,
        reductions=reductions,
    )
    probe_D, offset, entropy_T = _probe(objective, data, metric, seed, watch.check_cancelled, reductions)
    x_TD = metric.whitened(data.candidate_TD)
    y_TD = (data.reference_TD.to(x_TD.dtype) - data.candidate_TD.to(x_TD.dtype)) @ metric.weigh_DD
    features_TF = features(entropy_T, data.context.position_T, data.context.token_T, data.class_V, len(CLASSES))
    shared = _coordinates(single, metric)
    states = [shared] * settings.experts
    share_TK = _first_shares(features_TF, y_TD - x_TD @ shared.map_DD - shared.shift_D, settings.experts)
    gate_FK = _logistic(features_TF, share_TK, features_TF.new_zeros(features_TF.shape[1], settings.experts))
    for turn in range(_ROUNDS):
        watch.check_cancelled()
        watch.progress("mixture", turn, _ROUNDS)
        share_TK = torch.softmax(features_TF @ gate_FK, dim=1)
        if turn:
            share_TK = _responsibilities(x_TD, y_TD, states, share_TK)
            gate_FK = _logistic(features_TF, share_TK, gate_FK)
        states = [_expert(x_TD, y_TD, share_TK[:, k], shared) for k in range(settings.experts)]
        make = partial(_assemble, states, metric, settings.rank, data.class_V, probe_D, offset, gate_FK, None)
        found = watch.look(make, settings.epochs + 2 + turn)
        if found < best_kl:
            best, best_kl = make(), found
    if isinstance(best, Mixture):
        best = _scaled(best, objective, data.at_most(settings.rows, seed), settings.steps, watch, reductions)
    watch.progress("mixture", _ROUNDS, _ROUNDS)
    return best, early


def _probe(
    objective: Objective,
    data: FitData,
    metric: Metric,
    seed: int,
    check_cancelled: CheckCancelled,
    reductions: Reductions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ridge regression of the raw row's entropy on the hidden state: (probe_D, offset, its estimate for all rows)."""
    some = data.at_most(_PROBE_ROWS, seed)
    found = reductions.columns(
        "entropy",
        objective.chunks(some, check_cancelled),
        lambda chunk: {"entropy_T": entropy(objective.candidate_logits(chunk.candidate_TD))},
    )
    target_T = found["entropy_T"].to(metric.mean_D.dtype)
    x_TD = metric.whitened(some.candidate_TD)
    width = x_TD.shape[1]
    gram_DD = x_TD.T @ x_TD / len(some) + max(0.1, width / len(some)) * torch.eye(width, dtype=x_TD.dtype)
    weight_D = torch.linalg.solve(gram_DD, x_TD.T @ (target_T - target_T.mean()) / len(some))
    probe_D = metric.whiten_DD @ weight_D
    offset = target_T.mean() - metric.mean_D @ probe_D
    return probe_D, offset, data.candidate_TD.to(probe_D.dtype) @ probe_D + offset


def _coordinates(single: Base, metric: Metric) -> State:
    """N and n of a fitted low-rank map."""
    tensors = single.tensors()
    dense_DD = tensors["down_DR"] @ tensors["up_RD"]
    map_DD = torch.linalg.solve(metric.whiten_DD, dense_DD) @ metric.weigh_DD
    return State(map_DD, (tensors["shift_D"] + metric.mean_D @ dense_DD) @ metric.weigh_DD)


def _first_shares(features_TF: torch.Tensor, residual_TD: torch.Tensor, experts: int) -> torch.Tensor:
    """Soft bands along the direction in which the features tell most of what the shared map leaves, [T, K]."""
    count, width = features_TF.shape
    gram_FF = features_TF.T @ features_TF / count + 1e-3 * torch.eye(width, dtype=features_TF.dtype)
    told_TD = features_TF @ torch.linalg.solve(gram_FF, features_TF.T @ residual_TD / count)
    told_TD = told_TD - told_TD.mean(dim=0)
    score_T = told_TD @ torch.linalg.eigh(told_TD.T @ told_TD)[1][:, -1]
    levels = (torch.arange(experts) + 0.5) / experts
    centre_K = torch.from_numpy(np.quantile(score_T.numpy(), levels.numpy())).to(score_T.dtype)
    spread = score_T.std().clamp(min=1e-6)
    return torch.softmax(-2 * ((score_T[:, None] - centre_K) / spread).square(), dim=1)


def _responsibilities(
    x_TD: torch.Tensor, y_TD: torch.Tensor, states: list[State], share_TK: torch.Tensor
) -> torch.Tensor:
    """r of each row; σ² is the mean residual, so that the gate and not the residual's length decides most."""
    residual_TK = torch.stack([(y_TD - x_TD @ s.map_DD - s.shift_D).square().sum(dim=1) for s in states], dim=1)
    scale = residual_TK.mean().clamp(min=1e-12)
    return torch.softmax(share_TK.clamp(min=1e-12).log() - residual_TK / (2 * scale), dim=1)


def _logistic(features_TF: torch.Tensor, target_TK: torch.Tensor, gate_FK: torch.Tensor) -> torch.Tensor:
    """Gradient steps of multinomial logistic regression, preconditioned with Böhning's bound ½ FᵀF."""
    width = features_TF.shape[1]
    bound_FF = 0.5 * features_TF.T @ features_TF / len(features_TF) + 1e-3 * torch.eye(width, dtype=features_TF.dtype)
    for _ in range(_LOGISTIC_STEPS):
        excess_TK = torch.softmax(features_TF @ gate_FK, dim=1) - target_TK
        slope_FK = features_TF.T @ excess_TK / len(features_TF) + 1e-3 * gate_FK
        gate_FK = gate_FK - torch.linalg.solve(bound_FF, slope_FK)
    return gate_FK


def _expert(x_TD: torch.Tensor, y_TD: torch.Tensor, weight_T: torch.Tensor, shared: State) -> State:
    """Weighted ridge regression of what the shared map leaves."""
    mass = weight_T.sum().clamp(min=1e-6)
    residual_TD = y_TD - x_TD @ shared.map_DD - shared.shift_D
    weighted_TD = x_TD * weight_T[:, None]
    # Shares of all rows, not of its own: an expert of few rows stays close to the shared map.
    shift_D = (residual_TD * weight_T[:, None]).sum(dim=0) / (mass + x_TD.shape[1])
    gram_DD = weighted_TD.T @ x_TD / len(x_TD) + _PULL * torch.eye(x_TD.shape[1], dtype=x_TD.dtype)
    change_DD = torch.linalg.solve(gram_DD, weighted_TD.T @ (residual_TD - shift_D) / len(x_TD))
    return State(shared.map_DD + change_DD, shared.shift_D + shift_D)


def _assemble(
    states: list[State],
    metric: Metric,
    rank: int,
    class_V: torch.Tensor,
    probe_D: torch.Tensor,
    offset: torch.Tensor,
    gate_FK: torch.Tensor,
    log_scale_K: torch.Tensor | None,
) -> Mixture:
    maps = [state.cut(metric, rank) for state in states]
    return Mixture(
        class_V=class_V,
        probe_D=probe_D,
        probe_offset=offset,
        gate_FK=gate_FK,
        down_DR=torch.cat([one.down_DR for one in maps], dim=1),
        up_RD=torch.cat([one.up_RD for one in maps], dim=0),
        shift_KD=torch.stack([one.shift_D for one in maps]),
        log_scale_K=torch.zeros(len(states)) if log_scale_K is None else log_scale_K,
        ids_I=torch.empty(0, dtype=torch.int64),
        bias_KI=torch.empty(len(states), 0),
    )


def _scaled(
    made: Mixture, objective: Objective, data: FitData, steps: int, watch: Watch, reductions: Reductions
) -> Mixture:
    """The mixture with its experts' scales, where they lower KL on the stop set."""

    def gates(z_CV: torch.Tensor, context: RowContext) -> torch.Tensor:
        return made.gate(entropy(z_CV), context)

    theta_K = fit_scales(
        Fixed(objective, made),
        data,
        gates,
        made.experts,
        steps=steps,
        check_cancelled=watch.check_cancelled,
        reductions=reductions,
    )
    tensors = dict(made.tensors())
    scaled = Mixture(**(tensors | {"log_scale_K": theta_K.float()}))
    return scaled if watch.look(lambda: scaled, -1) < watch.look(lambda: made, -1) else made
