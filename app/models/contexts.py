"""Whether both models can read the windows, before a job is queued."""

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import JobRequest
from app.models.checkpoint import CheckpointInfo
from app.recipes.base import Calibrated, Step

# A reference of a shorter context reads on in halves of it.
SHORTEST_REFERENCE = 4


def check_window(
    request: JobRequest, reference: CheckpointInfo, origin: CheckpointInfo, candidate: CheckpointInfo
) -> None:
    """Returns where both models can read the windows; `candidate` is `origin` after its recipe.

    A compare job or a sweep may have windows longer than the reference's context if the candidate's is long enough: the
    reference then reads the newest tokens. Raises WINDOW_TOO_LARGE, with what would be long enough.
    """
    window = request.window
    extends = any(step.role == "context" for step in request.candidate.recipe)
    limits = [info.max_position for info in (origin, candidate) if info.max_position is not None]
    if candidate.max_position is not None and window > candidate.max_position:
        raise _too_large(window, candidate.max_position, _hint(request, origin, candidate, extends=extends))
    if not limits or reference.max_position is None or window <= reference.max_position:
        return
    if not request.beyond_context or reference.max_position < SHORTEST_REFERENCE:
        raise _too_large(
            window,
            reference.max_position,
            f"give a window of at most {reference.max_position}; only compare jobs and sweeps measure beyond it",
        )


def shortest(*models: CheckpointInfo) -> int | None:
    """Tokens of the shortest of their contexts; None: no limit is known."""
    return min((info.max_position for info in models if info.max_position is not None), default=None)


def check_calibration_window(info: CheckpointInfo, step: Step, pointer: str) -> None:
    """Raises WINDOW_TOO_LARGE if a step that reads text has windows longer than the context of the checkpoint as it
    is at that step."""
    if isinstance(step, Calibrated) and step.reads_text:
        check_calibration(step.calibration_window, info.max_position, f"{pointer}/calibration_window")


def check_calibration(window: int, limit: int | None, pointer: str) -> None:
    """Raises WINDOW_TOO_LARGE if calibration windows of so many tokens are longer than a context of `limit`."""
    if limit is not None and window > limit:
        raise HemostatError(
            ErrorCode.WINDOW_TOO_LARGE,
            f"calibration windows of {window} tokens are longer than the model's context of {limit}",
            hint=f"give a calibration_window of at most {limit}, and more windows for as much text",
            pointer=pointer,
        )


def _hint(request: JobRequest, origin: CheckpointInfo, candidate: CheckpointInfo, *, extends: bool) -> str:
    most = candidate.max_position
    if not request.beyond_context or origin.max_position is None:
        return f"give a window of at most {most}"
    factor = -(-request.window * 100 // origin.max_position) / 100
    step = "raise the factor of the context step" if extends else "extend the candidate by a step such as context.yarn"
    return f"give a window of at most {most}, or {step} to {factor:g} or more"


def _too_large(window: int, limit: int, hint: str) -> HemostatError:
    return HemostatError(
        ErrorCode.WINDOW_TOO_LARGE,
        f"window {window} is longer than the model's context of {limit} tokens",
        hint=hint,
        pointer="/window",
    )
