"""What a mixture of widths runs forward to measure what its units cost."""

from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, select
from app.models.packing import FUSED
from app.models.steps.dynamic import chooses, widths
from app.recipes.base import Step
from app.recipes.quantize import QuantizeDynamic

# A unit of a mixture is measured on so many windows, so many tokens of each.
MIXED_WINDOWS, MIXED_TOKENS = 2, 256


def measured_tokens(step: Step, info: CheckpointInfo) -> float:
    """Tokens that a mixture of widths runs the model over to measure what its units cost, in passes of the whole model.
    Each unit is run at each width, from its layer on to the end.

    `info`: the checkpoint that the step is given; the step is one that its check takes.
    """
    if not isinstance(step, QuantizeDynamic) or not chooses(step):
        return 0.0
    tokens = min(MIXED_WINDOWS, step.calibration_windows) * min(MIXED_TOKENS, step.calibration_window)
    units = {(weight.layer, unit(weight)) for weight in select(info, step)}
    parts = sum((info.layers - layer) / info.layers for layer, _ in units if layer is not None)
    return tokens * len(widths(step)) * parts


def unit(weight: Weight) -> tuple[str, ...]:
    """The linear layers that share a width with this one."""
    last = weight.module.rpartition(".")[2]
    return next((together for together in FUSED if last in together), (last,))
