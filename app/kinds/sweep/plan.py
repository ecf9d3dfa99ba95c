"""What of a sweep can be refused before it is queued, and what it costs, from shapes alone."""

from __future__ import annotations

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.estimates import Cost
from app.kinds.preflight import Checked
from app.kinds.sweep.request import FormBounds, SweepRequest
from app.models.checkpoint import CheckpointInfo
from app.models.knobs import check_knobs
from app.models.shares import shares


def check(request: SweepRequest, checked: Checked) -> None:
    """Raises `HemostatError` for a knob that the recipe has not, values that its step or the checkpoint cannot take,
    and bounds that miss the range."""
    check_knobs(request.candidate.recipe, request.knobs, checked.check_recipe)
    if request.bounds != FormBounds():
        _check_bounds(request, checked.source)


def cost(request: SweepRequest, cost: Cost) -> None:
    """Adds the settings."""
    cost.add_settings(request.planned)


def _check_bounds(request: SweepRequest, info: CheckpointInfo) -> None:
    share = shares(info, request.candidate.recipe, request.knobs[0])
    if share is None:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{request.knobs[0].field} removes no share of the model, so no form is fitted that could have bounds",
            hint="leave `bounds` out",
            pointer="/bounds",
        )
    low, high = request.bounds.s0
    first, last = min(share), max(share)
    if (low is not None and low > last) or (high is not None and high < first):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"s0 is bounded to {_range(low, high)}, "
            f"outside the share that the values remove, {first:.3g} to {last:.3g}",
            hint="give bounds of s0 that overlap the range of the knob",
            pointer="/bounds/s0",
        )


def _range(low: float | None, high: float | None) -> str:
    """Two bounds as they are written after --bound; what is open is left out."""
    return "..".join("" if bound is None else f"{bound:g}" for bound in (low, high))
