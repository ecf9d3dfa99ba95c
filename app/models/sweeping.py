"""What can be refused of a kind that turns knobs before it is queued, and what it will cost, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import SweptRequest
from app.kinds.surface.request import SurfaceRequest
from app.kinds.sweep.request import FormBounds, SweepRequest
from app.models.checkpoint import CheckpointInfo
from app.models.knobs import check_knobs
from app.models.shares import shares
from app.models.surfaces import check_surface
from app.recipes.recipe import Recipe


def check_swept(request: SweptRequest, info: CheckpointInfo, check: Callable[[Recipe], object]) -> None:
    """Refuses a knob that the recipe has not, values that its step or the checkpoint `info` cannot take (`check` raises
    for a recipe), and bounds that miss the range. Raises `HemostatError` with a pointer."""
    if isinstance(request, SurfaceRequest):
        check_surface(request, check)
        return
    check_knobs(request.candidate.recipe, request.knobs, check)
    if isinstance(request, SweepRequest) and request.bounds != FormBounds():
        _check_bounds(request, info)


def extra_passes(request: SweptRequest) -> int:
    """Recipes beyond the first, each of which is made and run over the text."""
    return request.planned - 1


def _check_bounds(request: SweepRequest, info: CheckpointInfo) -> None:
    share = shares(info, request.candidate.recipe, request.knobs[0])
    if share is None:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{request.knobs[0].field} removes no share of the model, and no form is fitted that bounds could bind",
            hint="leave bounds out",
            pointer="/bounds",
        )
    low, high = request.bounds.s0
    first, last = min(share), max(share)
    if (low is not None and low > last) or (high is not None and high < first):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"s0 is bounded to {_range(low, high)}, "
            f"outside the share that the values remove, {first:.3g} to {last:.3g}",
            hint="let the bounds of s0 meet the range of the knob",
            pointer="/bounds/s0",
        )


def _range(low: float | None, high: float | None) -> str:
    """Two bounds as they are written after --bound; what is open is left out."""
    return "..".join("" if bound is None else f"{bound:g}" for bound in (low, high))
