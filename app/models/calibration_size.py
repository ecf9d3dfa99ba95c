"""How much calibration text a step takes by itself: second moments of many inputs need many tokens."""

from typing import Final, TypeVar

from app.models.checkpoint import CheckpointInfo
from app.recipes.base import MOST_WINDOWS, Calibrated, Step

# Second moments of a layer's inputs are singular below 1.
TOKENS_PER_INPUT: Final = 4
_Step = TypeVar("_Step", bound=Step)


def widest_input(info: CheckpointInfo) -> int:
    """Inputs of the widest layer."""
    return max(tensor.shape[-1] for tensor in info.tensors.values() if len(tensor.shape) > 1)


def sized(step: _Step, info: CheckpointInfo, held: int | None = None) -> _Step:
    """The step with the windows that it takes of a model's text. At its default a step with second moments takes
    `TOKENS_PER_INPUT` per input of the widest layer if that is more, as far as the text has them: `held` tokens, None
    if that is not known. All other steps stay as they are."""
    usual = type(step).model_fields.get("calibration_windows")
    if not isinstance(step, Calibrated) or not step.squares or usual is None:
        return step
    if step.calibration_windows != usual.default:
        return step
    enough = -(-TOKENS_PER_INPUT * widest_input(info) // step.calibration_window)
    there = MOST_WINDOWS if held is None else held // step.calibration_window
    windows = max(step.calibration_windows, min(enough, there, MOST_WINDOWS))
    return step.model_copy(update={"calibration_windows": windows})
