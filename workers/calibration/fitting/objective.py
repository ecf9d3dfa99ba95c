"""KL(reference‖calibrated), exact over the vocabulary, with its gradient in closed form; memory does not grow with T.

With a the reference's logits, z the calibrated ones, p = softmax(a), q = softmax(z):

    KL = Σ p (ln p − ln q)        ∂KL/∂z = q − p        ∂KL/∂h = ((q − p) ∘ z'(u)) W,  u = W h + bias

z' is the derivative of soft cap and scale. So a hidden correction needs three products with the head a row and no graph
through the vocabulary. Products run in the head's dtype (bf16 in practice); the divergence itself is summed in float32.
If both heads are one matrix without a cap, KL is taken in the difference form, d = W (h_ref − h). Its rounding is
relative to the difference and not to the logits (docs/divergence.md):

    KL = Σ p d + ln Σ p e^{−d}

Names: T rows, C rows of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, reduce

import torch

from workers.calibration.fitting.data import FitData
from workers.calibration.reductions import Reductions, State
from workers.calibrators.protocol import Calibrator
from workers.distributions.head import Head, pair_on
from workers.products import product

# Numbers of a chunk of logits: 50 MB in float32, 256 rows of the demo model.
CHUNK_NUMBERS = 1 << 23
_MOST_ROWS = 256

CheckCancelled = Callable[[], None]


def never_cancelled() -> None:
    """Always goes on."""


class Objective:
    """Divergence and gradients under two heads on `device`, where rows and calibrators that it is given are too."""

    def __init__(self, reference: Head, candidate: Head, *, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.reference, self.candidate = pair_on(reference, candidate, self.device)
        self._plain = (
            reference.softcap is None
            and candidate.softcap is None
            and reference.scale == candidate.scale
            and reference.bias_V is None
            and candidate.bias_V is None
            and self.reference.same_matrix(self.candidate)
        )
        self.chunk = max(8, min(_MOST_ROWS, CHUNK_NUMBERS // reference.vocabulary))

    def chunks(
        self, data: FitData, check_cancelled: CheckCancelled = never_cancelled, *, rows: int | None = None
    ) -> Iterator[FitData]:
        """`data` in order on the device, `rows` at a time (default: a chunk)."""
        size = rows or self.chunk
        for start in range(0, len(data), size):
            check_cancelled()
            yield data.select(torch.arange(start, min(start + size, len(data)))).to(self.device)

    def average(
        self, data: FitData, of: Callable[[FitData], torch.Tensor], rows: int, check_cancelled: CheckCancelled
    ) -> torch.Tensor:
        """The mean over all rows of what `of` sums over `rows` at a time."""
        return reduce(torch.add, map(of, self.chunks(data, check_cancelled, rows=rows))) / len(data)

    def gradient(self, reference_CD: torch.Tensor, hidden_CD: torch.Tensor) -> torch.Tensor:
        """∂KL/∂h of each row at hidden states `hidden_CD`, of their dtype."""
        p_CV = torch.softmax(_logits(reference_CD, self.reference), dim=1)
        z_CV = _logits(hidden_CD, self.candidate)
        slope_CV = torch.softmax(z_CV, dim=1).sub_(p_CV)
        if self.candidate.softcap is not None:
            capped = z_CV / (self.candidate.scale * self.candidate.softcap)
            slope_CV = slope_CV * (1 - capped * capped)
        return product(slope_CV, self.candidate.weight_VD).to(hidden_CD.dtype) * self.candidate.scale

    def reference_probabilities(self, reference_CD: torch.Tensor) -> torch.Tensor:
        """p, [C, V], at least float32."""
        return torch.softmax(_wide(_logits(reference_CD, self.reference)), dim=1)

    def candidate_logits(self, hidden_CD: torch.Tensor) -> torch.Tensor:
        """z, [C, V], at least float32."""
        return _wide(_logits(hidden_CD, self.candidate))

    def divergence(self, calibrator: Calibrator | None, chunk: FitData) -> torch.Tensor:
        """KL of each row of a chunk, nats; None: of the candidate as it is."""
        hidden_CD = chunk.candidate_TD
        if calibrator is not None:
            hidden_CD = calibrator.apply_hidden(hidden_CD, chunk.context)
        if self._plain:
            a_CV = _wide(_logits(chunk.reference_TD, self.reference))
            difference_CD = (_wide(chunk.reference_TD) - _wide(hidden_CD)).to(self.candidate.weight_VD.dtype)
            d_CV = _wide(product(difference_CD, self.candidate.weight_VD.T)) * self.candidate.scale
            z_CV = a_CV - d_CV
            if calibrator is not None:
                changed_CV = calibrator.apply_logits(z_CV, chunk.context)
                if changed_CV is not z_CV:
                    d_CV = a_CV - changed_CV
            return _difference_form(a_CV, d_CV)
        a_CV = _wide(_logits(chunk.reference_TD, self.reference))
        z_CV = _wide(_logits(hidden_CD, self.candidate))
        if calibrator is not None:
            z_CV = calibrator.apply_logits(z_CV, chunk.context)
        return _difference_form(a_CV, a_CV - z_CV)

    def mean(
        self, calibrator: Calibrator | None, data: FitData, check_cancelled: CheckCancelled = never_cancelled
    ) -> float:
        """Mean KL over all rows, nats; not finite where a row is not."""
        return self.kept_mean(lambda: calibrator, data, check_cancelled, Reductions(), "mean")

    def kept_mean(
        self,
        calibrator: Callable[[], Calibrator | None],
        data: FitData,
        check_cancelled: CheckCancelled,
        reductions: Reductions,
        name: str,
    ) -> float:
        """The same as a reduction of this name; the calibrator is made only where rows are left."""
        made = cache(calibrator)

        def sums(chunk: FitData) -> State:
            return {"kl": self.divergence(made(), chunk).double().sum()[None]}

        with torch.inference_mode():
            found = reductions.columns(name, self.chunks(data, check_cancelled), sums)
        return float(sum(found["kl"].tolist())) / len(data)


def _difference_form(a_CV: torch.Tensor, d_CV: torch.Tensor) -> torch.Tensor:
    """Σ p d + ln Σ p e^{−d}; d is centred first, which changes nothing but keeps e^{−d} small."""
    p_CV = torch.softmax(a_CV, dim=1)
    d_CV = d_CV - (p_CV * d_CV).sum(dim=1, keepdim=True)
    # expm1 keeps what is left when d is small, and the sums of p to 1.
    rest_C = (p_CV * torch.expm1(-d_CV)).sum(dim=1)
    return torch.where(rest_C.isfinite(), torch.log1p(rest_C.clamp(min=-1)), torch.logsumexp(-d_CV + p_CV.log(), dim=1))


def _logits(hidden_CD: torch.Tensor, head: Head) -> torch.Tensor:
    """Logits in the dtype of the head's matrix."""
    weight_VD = head.weight_VD
    logits_CV = product(hidden_CD.to(weight_VD.dtype), weight_VD.T)
    if head.bias_V is not None:
        logits_CV = logits_CV + head.bias_V.to(logits_CV.dtype)
    if head.softcap is not None:
        logits_CV = head.softcap * torch.tanh(logits_CV / head.softcap)
    return logits_CV if head.scale == 1.0 else logits_CV * head.scale


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
