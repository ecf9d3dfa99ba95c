"""The request of a `sweep` job."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.contracts.base import Contract
from app.contracts.option import Option
from app.contracts.request import Knob, SweptRequest

Bound = tuple[float | None, float | None]


class FormBounds(Contract):
    """Bounds on the coefficients of the published form, [low, high], null is open; as `hemostat threshold` takes them.

    Up to s0, ln y = ln a + b ln s. Beyond it, ln y = ln a + b ln s0 + k1 (s - s0) + k2 (s - s0)². The share removed
    is s.
    """

    a: Bound = (None, None)
    b: Bound = (None, None)
    s0: Bound = (None, None)
    k1: Bound = (None, None)
    k2: Bound = (None, None)

    @field_validator("a", "b", "s0", "k1", "k2")
    @classmethod
    def _rising(cls, bound: Bound, info: ValidationInfo) -> Bound:
        low, high = bound
        if low is not None and high is not None and low > high:
            raise ValueError(f"the lower bound of {info.field_name}, {low:g}, is above the upper, {high:g}")
        if info.field_name == "a" and high is not None and high <= 0:
            raise ValueError(f"the upper bound of a is {high:g}, and a is positive")
        return bound


class SweepRequest(SweptRequest):
    """Turn one knob of a recipe over a grid, and find how far it may be turned."""

    beyond_context: ClassVar[bool] = True

    kind: Literal["sweep"]
    knobs: Annotated[tuple[Knob, ...], Field(min_length=1, max_length=1)] = Field(
        description='short for {"sweep": [...]} or {"sweep": {"from": ..., "to": ..., "points": ...}} in place of a '
        "value of the candidate's recipe, which then holds the first value"
    )
    budget: Annotated[int, Field(ge=2, le=200)] | None = Field(
        default=None,
        description="most values to measure; each next value is the one that narrows the threshold's interval most; "
        "default: all",
    )
    bounds: Annotated[FormBounds, Option("--bound", shape="bounds")] = Field(
        default=FormBounds(), description="bounds on the form that is fitted to the perplexity"
    )

    @property
    def planned(self) -> int:
        """How many recipes will be measured at most."""
        every = super().planned
        return every if self.budget is None else min(every, self.budget)
