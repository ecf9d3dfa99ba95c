"""Logits divided by a temperature T, in the checkpoint: p_T ∝ p^(1/T).

The logits are W · (g ⊙ x̂) (`app.models.steps.decode`), so the final norm's gain g becomes g / T and the head, which
may be the embedding, stays. A gain is rounded to the checkpoint's dtype: a power of two divides exactly. Any other T
moves each gain by at most half a step of the dtype, which the figure `rounding` shows. Where g − 1 is stored (Gemma), a
gain that is far below 1 has the step of a number near −1, which is coarser.

Shapes: D hidden size.
"""

import torch

from app.models.steps.decode import tempered
from app.recipes.decode import DecodeTemperature
from app.recipes.notices import StepNotice
from workers.surgery.gains import offset_of
from workers.surgery.step_run import StepRun


class TemperatureStep:
    """`decode.temperature`."""

    version = 1

    def __init__(self, step: DecodeTemperature) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Raises CHECKPOINT_NOT_FINITE if a gain leaves the dtype's range."""
        (norm,) = context.weights
        stored_D = context.read(norm.name)
        divided_D, rounding = divided(stored_D, self._step.temperature, offset=offset_of(context.source))
        context.put(norm.name, divided_D)
        context.config.update(tempered(context.source, self._step.temperature))
        context.figures["rounding"] = rounding
        if rounding > torch.finfo(stored_D.dtype).eps / 2:
            context.warn(
                StepNotice.INEXACT_TEMPERATURE(
                    temperature=self._step.temperature,
                    percent=100 * rounding,
                    precision=100 * torch.finfo(stored_D.dtype).eps / 2,
                )
            )


def divided(stored_D: torch.Tensor, temperature: float, *, offset: float) -> tuple[torch.Tensor, float]:
    """(stored weights whose gains are those of `stored_D` over the temperature, in its dtype; ‖ĝ − g/T‖ / ‖g/T‖ of the
    gains ĝ that they stand for). A gain is a stored weight plus `offset`."""
    wide_D = stored_D.to(torch.float64)
    # Without adding and taking away an offset that would cost small weights their last bits: at T = 1 nothing changes.
    exact_D = wide_D / temperature + offset * (1 / temperature - 1)
    divided_D = exact_D.to(stored_D.dtype)
    size = float((exact_D + offset).norm())
    return divided_D, float((divided_D.to(torch.float64) - exact_D).norm()) / size if size else 0.0
