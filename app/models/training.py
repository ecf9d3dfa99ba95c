"""How fast steps train, and what a mixture of widths runs forward to measure what its units cost.

Repair of the demo model on two cores: 86,000 tokens of block by block fitting took 330 s, 61,000 of distillation 310 s
(docs/recipes/repair.md). Gradient-aware pruning is taken to be as fast. Of text that the reference wrote 8,192 tokens
took 44 s, 16,384 took 85 s (the same page).
"""

from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, select
from app.models.packing import FUSED
from app.models.steps.dynamic import chooses, widths
from app.recipes.base import Step
from app.recipes.quantize import QuantizeDynamic

# Parameters times tokens, forward and backward.
CPU_TRAINED_PARAMETER_TOKENS_PER_SECOND = 3e10
# Forward alone, but each time to the head's distribution over the whole vocabulary: 276,480 tokens of the demo model
# took 1,520 s on one core, which is taken for twice of what two take.
CPU_MEASURED_PARAMETER_TOKENS_PER_SECOND = 4.9e10
# Tokens that a model writes by itself, token by token, many pieces at once.
CPU_WRITTEN_PARAMETER_TOKENS_PER_SECOND = 2.6e10
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
    units = {(weight.layer, _unit(weight)) for weight in select(info, step)}
    parts = sum((info.layers - layer) / info.layers for layer, _ in units if layer is not None)
    return tokens * len(widths(step)) * parts


def _unit(weight: Weight) -> tuple[str, ...]:
    """The linear layers that share a width with this one."""
    last = weight.module.rpartition(".")[2]
    return next((together for together in FUSED if last in together), (last,))
