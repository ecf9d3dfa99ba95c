"""What can be refused of an attribution before it is queued, and what it will take: from shapes and settings alone."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.requests.attribute import AttributeRequest
from app.models.checkpoint import CheckpointInfo
from app.models.shapes import LAYOUTS

# Passes of both models over the subset, and of what is looked into, beside the budget: controls, twins, restoring,
# pairs and all first parts together, each about half a pass and more.
LOOKS, PAIRS, TOGETHER = 1.5, 10, 3.0


def check_attribution(request: AttributeRequest, reference: CheckpointInfo, candidate: CheckpointInfo) -> None:
    """Returns where parts can be swapped, or told why not in the report; `candidate` is what its recipe makes of it.

    Raises `HemostatError` with the pointer of the field: CHECKPOINT_UNSUPPORTED (an architecture whose layout is not
    known: it cannot be run layer by layer), UNKNOWN_MODULE (a layer that the reference has not), INVALID_REQUEST
    (experts of a model that has none, a level or direction twice, a window without a token that is predicted).
    """
    for pointer, info in (("/reference/model", reference), ("/candidate/model", candidate)):
        if info.architecture not in LAYOUTS:
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"the layout of {info.architecture} is not known, so that it cannot be run layer by layer",
                hint="attribution takes " + ", ".join(sorted(LAYOUTS)),
                pointer=pointer,
            )
    for index, layer in enumerate(request.layers or ()):
        if layer >= reference.layers:
            raise HemostatError(
                ErrorCode.UNKNOWN_MODULE,
                f"the reference has no layer {layer}",
                hint=f"its layers are 0 to {reference.layers - 1}",
                pointer=f"/layers/{index}",
            )
    for field, given in (("levels", request.levels), ("directions", request.directions)):
        for index, one in enumerate(given):
            if one in given[:index]:
                raise HemostatError(
                    ErrorCode.INVALID_REQUEST,
                    f"{field} holds {one} twice",
                    hint="name each once",
                    pointer=f"/{field}/{index}",
                )
    if request.levels == ("expert",) and not LAYOUTS[reference.architecture].mixture:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{reference.architecture} has no experts, and nothing else is looked at",
            hint="name other levels, or none: every level that the model has is looked at then",
            pointer="/levels/0",
        )
    if request.window < 8:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"parts are swapped on windows of at least 8 tokens, and the window is {request.window}",
            hint="give a larger window",
            pointer="/window",
        )


@dataclass(frozen=True)
class AttributionCost:
    """`passes` of the whole model over `tokens` tokens, `bytes` of states at the borders; `told` says so in words."""

    passes: float
    tokens: int
    bytes: int
    told: tuple[str, ...]


def attribution_cost(
    request: AttributeRequest, infos: tuple[CheckpointInfo, CheckpointInfo], tokens: int
) -> AttributionCost:
    """What swapping takes beside the engine's passes, at most; `tokens` of the whole text."""
    subset = min(request.tokens, tokens)
    looks = request.top * (LOOKS + (1.0 if "restore" in request.directions else 0.0) + 0.5 * request.twins)
    passes = 2 + request.budget + looks + PAIRS / 2 + TOGETHER
    size = sum(2 * info.hidden_size * (info.layers + 1) for info in infos) * subset
    return AttributionCost(
        passes,
        subset,
        size,
        (
            f"at most {request.budget:g} forward passes over {subset} tokens to find the first parts, and about "
            f"{passes - request.budget:.0f} to look into them, through transformers' layers",
            f"hidden states at the layer borders of both models take {size / 2**20:.0f} MiB of disk while the job runs",
        ),
    )
