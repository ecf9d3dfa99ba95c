"""Whether both models can read the windows, before a job is queued."""

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.requests.base import JobRequest
from app.contracts.requests.compare import CompareRequest
from app.models.checkpoint import CheckpointInfo

# A reference of a shorter context reads on in halves of it.
SHORTEST_REFERENCE = 4


def check_window(
    request: JobRequest, reference: CheckpointInfo, origin: CheckpointInfo, candidate: CheckpointInfo
) -> None:
    """Returns where both models can read the windows; `candidate` is `origin` after its recipe.

    A compare job may have windows longer than the reference's context if the candidate's is long enough: the reference
    then reads the newest tokens. Raises WINDOW_TOO_LARGE, with what would be long enough.
    """
    window = request.window
    extends = any(str(getattr(step, "type", "")).startswith("context.") for step in request.candidate.recipe)
    limits = [info.max_position for info in (origin, candidate) if info.max_position is not None]
    if candidate.max_position is not None and window > candidate.max_position:
        raise _too_large(window, candidate.max_position, _hint(request, origin, candidate, extends=extends))
    if not limits or reference.max_position is None or window <= reference.max_position:
        return
    if not isinstance(request, CompareRequest) or reference.max_position < SHORTEST_REFERENCE:
        raise _too_large(
            window,
            reference.max_position,
            f"give a window of at most {reference.max_position}; only compare jobs measure beyond it",
        )


def _hint(request: JobRequest, origin: CheckpointInfo, candidate: CheckpointInfo, *, extends: bool) -> str:
    most = candidate.max_position
    if not isinstance(request, CompareRequest) or origin.max_position is None:
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
