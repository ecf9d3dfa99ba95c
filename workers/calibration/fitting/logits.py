"""Fits of corrections after the head: scales that are linear in features of the row, and the token bias.

Scales. The logits of row t are multiplied with exp(φ_t·θ): φ = 1 is a temperature, φ = the hat functions of the knots
a confidence temperature. With s = φ·θ and z the scaled logits,

    ∂KL/∂s = Σ (q − p) z        ∂²KL/∂s² ≈ Var_q(z)        (Gauss-Newton)

so that a few Newton steps on a few numbers end the fit; a step that does not lower KL is halved.

Token bias. L1-penalized, by proximal steps on a quadratic bound: diag q − q qᵀ ⪯ diag q, so

    b ← shrink(b − g / E[q], λ / E[q]),   g = E[q − p]

descends. λ of a token is `evidence` standard errors of its g (clusters: documents) before the first step: a token whose
mean excess could be chance keeps exactly 0. Then the tokens that have a bias are fitted once more with one standard
error as λ (relaxed lasso, Meinshausen 2007). All others are held at 0. The first pass shrinks what it keeps by far too
much.

Names: T rows, C rows of a chunk, K features, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.objective import CheckCancelled, Objective
from workers.calibration.fitting.spec import Settings
from workers.calibration.reductions import Reductions, State
from workers.calibrators.base import Base
from workers.calibrators.confidence import ConfidenceTemperature, log_top_probability
from workers.calibrators.protocol import RowContext
from workers.calibrators.temperature import Temperature
from workers.calibrators.token_bias import TokenBias

# A prior of one thousandth of an average row's curvature for each row of data: keeps knots without rows at their place.
_PRIOR = 1e-3
_LARGEST_STEP = 1.0
# Nats; a token that is e^5 times too likely everywhere is a broken model, not a miscalibrated one.
_LARGEST_BIAS = 5.0
# Below this a bias is not worth its bytes.
_LEAST_BIAS = 0.005
_HALVINGS = 6


@dataclass(frozen=True)
class Fixed:
    """What is fitted already and stays: hidden states and logits go through it first."""

    objective: Objective
    before: Base

    def logits(self, chunk: FitData) -> tuple[torch.Tensor, torch.Tensor]:
        """(p, z) of a chunk: the reference's distribution and the logits that come in."""
        hidden_CD = self.before.apply_hidden(chunk.candidate_TD, chunk.context)
        z_CV = self.before.apply_logits(self.objective.candidate_logits(hidden_CD), chunk.context)
        return self.objective.reference_probabilities(chunk.reference_TD), z_CV


Features = Callable[[torch.Tensor, RowContext], torch.Tensor]


def fit_scales(
    fixed: Fixed,
    data: FitData,
    features: Features,
    count: int,
    *,
    steps: int,
    check_cancelled: CheckCancelled,
    reductions: Reductions,
) -> torch.Tensor:
    """θ of `count` features, float64 on the way, by damped Newton steps from 0. `features(z, context)` is [C, K]."""
    theta_K = torch.zeros(count, dtype=torch.float64, device=fixed.objective.device)
    eye_KK = torch.eye(count, dtype=torch.float64, device=theta_K.device)
    looks = itertools.count()

    def look(theta_K: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
        return _scales(fixed, data, features, theta_K, check_cancelled, reductions, f"scales-{next(looks)}")

    value, slope_K, curve_KK = look(theta_K)
    for _ in range(steps):
        prior = _PRIOR * float(curve_KK.diagonal().mean()) + torch.finfo(torch.float64).tiny
        step_K = torch.linalg.solve(curve_KK + prior * eye_KK, slope_K + prior * theta_K)
        step_K *= min(1.0, _LARGEST_STEP / max(float(step_K.abs().amax()), 1e-300))
        for _ in range(_HALVINGS):
            tried_K = theta_K - step_K
            found = look(tried_K)
            if found[0] < value:
                break
            step_K = step_K / 2
        else:
            break
        gained, theta_K = value - found[0], tried_K
        value, slope_K, curve_KK = found
        if gained < 1e-7 * abs(value):
            break
    return theta_K


def _scales(
    fixed: Fixed,
    data: FitData,
    features: Features,
    theta_K: torch.Tensor,
    check_cancelled: CheckCancelled,
    reductions: Reductions,
    name: str,
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Mean cross entropy (KL but for a constant), its gradient and curvature in θ."""

    def add(state: State, chunk: FitData) -> State:
        p_CV, z_CV = fixed.logits(chunk)
        phi_CK = features(z_CV, chunk.context).double()
        z_CV = z_CV * (phi_CK @ theta_K).exp().to(z_CV.dtype)[:, None]
        q_CV = torch.softmax(z_CV, dim=1)
        under_p_C, under_q_C = (p_CV * z_CV).sum(dim=1).double(), (q_CV * z_CV).sum(dim=1).double()
        spread_C = (q_CV * (z_CV - under_q_C.to(z_CV.dtype)[:, None]).square()).sum(dim=1).double()
        return {
            "value": state["value"] + (z_CV.logsumexp(dim=1).double() - under_p_C).sum(),
            "slope_K": state["slope_K"] + phi_CK.T @ (under_q_C - under_p_C),
            "curve_KK": state["curve_KK"] + (phi_CK * spread_C[:, None]).T @ phi_CK,
        }

    count = len(theta_K)
    start = {
        name: torch.zeros(shape, dtype=torch.float64, device=theta_K.device)
        for name, shape in (("value", ()), ("slope_K", (count,)), ("curve_KK", (count, count)))
    }
    with torch.inference_mode():
        found = reductions.of(name, start, fixed.objective.chunks(data, check_cancelled), add)
    return float(found["value"]) / len(data), found["slope_K"] / len(data), found["curve_KK"] / len(data)


def fit_temperature(
    fixed: Fixed, data: FitData, settings: Settings, *, check_cancelled: CheckCancelled, reductions: Reductions
) -> Temperature:
    """The temperature of least mean KL."""

    def one(z_CV: torch.Tensor, _: RowContext) -> torch.Tensor:
        return z_CV.new_ones(len(z_CV), 1)

    theta_K = fit_scales(
        fixed, data, one, 1, steps=settings.steps, check_cancelled=check_cancelled, reductions=reductions
    )
    return Temperature(float((-theta_K[0]).exp()))


def fit_confidence(
    fixed: Fixed, data: FitData, settings: Settings, *, check_cancelled: CheckCancelled, reductions: Reductions
) -> ConfidenceTemperature:
    """The table of least mean KL, its knots at quantiles of the feature."""
    with torch.inference_mode():
        seen = reductions.columns(
            "confidence",
            fixed.objective.chunks(data, check_cancelled),
            lambda chunk: {"top_T": log_top_probability(fixed.logits(chunk)[1]).float()},
        )
    levels = (torch.arange(settings.knots, dtype=torch.float32) + 0.5) / settings.knots
    knots_K = torch.unique(torch.quantile(seen["top_T"], levels)).to(fixed.objective.device)

    def hats(z_CV: torch.Tensor, _: RowContext) -> torch.Tensor:
        return hat_functions(log_top_probability(z_CV), knots_K)

    theta_K = fit_scales(
        fixed, data, hats, len(knots_K), steps=settings.steps, check_cancelled=check_cancelled, reductions=reductions
    )
    return ConfidenceTemperature(knots_K, theta_K.float())


def hat_functions(x_T: torch.Tensor, knots_K: torch.Tensor) -> torch.Tensor:
    """[T, K]: the weights with which piecewise linear interpolation takes each knot's value."""
    knots_K = knots_K.to(x_T.dtype)
    if len(knots_K) == 1:
        return x_T.new_ones(len(x_T), 1)
    right_T = torch.searchsorted(knots_K, x_T.contiguous()).clamp(1, len(knots_K) - 1)
    low_T, high_T = knots_K[right_T - 1], knots_K[right_T]
    share_T = ((x_T - low_T) / (high_T - low_T)).clamp(0, 1)
    made_TK = x_T.new_zeros(len(x_T), len(knots_K))
    made_TK.scatter_(1, right_T[:, None] - 1, (1 - share_T)[:, None])
    return made_TK.scatter_(1, right_T[:, None], share_T[:, None])


def fit_token_bias(
    fixed: Fixed, data: FitData, settings: Settings, *, check_cancelled: CheckCancelled, reductions: Reductions
) -> TokenBias:
    """The bias of least penalized mean KL; tokens without evidence are not in it."""
    looks = itertools.count()

    def look(bias_V: torch.Tensor, documents: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return _bias(fixed, data, bias_V, place_T, documents, check_cancelled, reductions, f"bias-{next(looks)}")

    vocabulary = fixed.objective.candidate.vocabulary
    bias_V = torch.zeros(vocabulary, dtype=torch.float64, device=fixed.objective.device)
    documents, place_T = torch.unique(data.document_T, return_inverse=True)
    open_V = torch.ones_like(bias_V)
    slope_V, mass_V, error_V = look(bias_V, len(documents))
    for penalty_V in (settings.evidence * error_V, error_V):
        for _ in range(settings.steps):
            stride_V = mass_V.clamp(min=1e-12)
            moved_V = bias_V - slope_V / stride_V
            shrunk_V = moved_V.sign() * (moved_V.abs() - penalty_V / stride_V).clamp(min=0)
            bias_V = shrunk_V.clamp(-_LARGEST_BIAS, _LARGEST_BIAS) * open_V
            slope_V, mass_V, _ = look(bias_V, 0)
        # Which tokens have a bias is settled; how large it is, is shrunk by one standard error only.
        open_V = (bias_V != 0).to(bias_V.dtype)
        if not bool(open_V.any()):
            break
    ids_I = (bias_V.abs() > _LEAST_BIAS).nonzero()[:, 0]
    return TokenBias(ids_I, bias_V[ids_I].float(), vocabulary)


def _bias(
    fixed: Fixed,
    data: FitData,
    bias_V: torch.Tensor,
    place_T: torch.Tensor,
    documents: int,
    check_cancelled: CheckCancelled,
    reductions: Reductions,
    name: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(mean q − p, mean q, standard error of the first over documents), [V] each. Without `documents` no error.

    The error needs the sum of each document; rows come document by document, so one open sum is enough.
    """
    shift_V = bias_V.to(torch.float32)
    order_T = place_T.argsort(stable=True) if documents else torch.arange(len(data))
    ordered = data.select(order_T) if documents else data
    place_T = place_T[order_T]

    def add(state: State, chunk: FitData) -> State:
        p_CV, z_CV = fixed.logits(chunk)
        q_CV = torch.softmax(z_CV + shift_V.to(z_CV.dtype), dim=1)
        excess_CV = q_CV - p_CV
        squares_V, open_V, start, current = (state[name] for name in ("squares_V", "open_V", "start", "current"))
        if documents:
            places, counts = torch.unique_consecutive(place_T[int(start) : int(start) + len(chunk)], return_counts=True)
            for place, rows_CV in zip(places, torch.split(excess_CV, counts.tolist()), strict=True):
                if place != current:
                    squares_V, open_V, current = squares_V + open_V.square(), torch.zeros_like(bias_V), place
                open_V = open_V + rows_CV.sum(dim=0)
        return {
            "slope_V": state["slope_V"] + excess_CV.sum(dim=0),
            "mass_V": state["mass_V"] + q_CV.sum(dim=0),
            "squares_V": squares_V,
            "open_V": open_V,
            "start": start + len(chunk),
            "current": current,
        }

    none = torch.tensor(0)
    begun = {key: torch.zeros_like(bias_V) for key in ("slope_V", "mass_V", "squares_V", "open_V")}
    with torch.inference_mode():
        found = reductions.of(
            name, begun | {"start": none, "current": none - 1}, fixed.objective.chunks(ordered, check_cancelled), add
        )
    slope_V, mass_V, squares_V = found["slope_V"], found["mass_V"], found["squares_V"] + found["open_V"].square()
    if documents > 1:
        about_V = (squares_V - slope_V.square() / documents).clamp(min=0) * documents / (documents - 1)
    else:  # one document is no evidence of anything beyond it
        about_V = torch.full_like(squares_V, torch.inf)
    return slope_V / len(data), mass_V / len(data), about_V.sqrt() / len(data)
