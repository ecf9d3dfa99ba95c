"""What a step that reads text has to do, from shapes alone."""

from typing import NamedTuple

from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.modules import select
from app.models.training import measured_tokens, unit
from app.recipes.base import Calibrated, Step


class Work(NamedTuple):
    """Work of a step. `passed` is tokens times the parameters of the decoder's layers. `weighed` counts a weight each
    time the step goes through it. `multiplied` counts the multiplications of products with second moments, and of
    their factors. `measured` is that of `measured_tokens`."""

    passed: float = 0.0
    weighed: float = 0.0
    multiplied: float = 0.0
    measured: float = 0.0


def work_of(step: Step, info: CheckpointInfo) -> Work:
    """Work of a step on the checkpoint that it is given. A product (O, I) × (I, I) multiplies O·I²
    numbers. Layers that share their inputs share the factors of I³."""
    if not (isinstance(step, Calibrated) and step.reads_text):
        return Work()
    within = sum(tensor.elements for name, tensor in info.tensors.items() if in_layer(name) is not None)
    passed = float((step.text_tokens + step.written_tokens) * within)
    if not step.weighed:
        return Work(passed, measured=measured_tokens(step, info))
    weights = select(info, step)
    squared = sum(weight.shape[0] * weight.shape[-1] ** 2 for weight in weights)
    inputs = {(weight.layer, unit(weight)): weight.shape[-1] for weight in weights}
    return Work(
        passed,
        step.weighed * sum(weight.shape[0] * weight.shape[-1] for weight in weights),
        step.products * squared + step.factors * sum(width**3 for width in inputs.values()),
        measured_tokens(step, info),
    )
