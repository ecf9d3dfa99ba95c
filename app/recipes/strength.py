"""Which way a number of a step is stronger: written with the field, in its annotation.

    bits: Annotated[int, Field(ge=2, le=8), FALLING]

It bounds nothing and no schema shows it. `app.models.strength` orders a sweep's settings by it, and the plan of a
surface takes from it where a step that is left out is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Direction:
    """How strong a field's values are.

    - rising: more of it changes the model more.
    - falling: less of it changes the model more: bits, experts that repair, text and time that a step may use.
    - around: it changes nothing at a neutral value, and more the further it is from there.
    - unknown: no order of strength is known: a damping, a seed.

    `neutral`, `configured` and `factor` are those of `around`. `removes`: the stronger, the more of the model is gone,
    so that damage grows ever faster. `left_out`: the value at which a step that is left out is; None if there is
    none.
    """

    kind: Literal["rising", "falling", "around", "unknown"]
    neutral: float | None = None
    configured: str | None = None
    factor: bool = False
    removes: bool = False
    left_out: float | None = None


# `null` is beyond every number: no limit, the whole row, left as it is.
RISING: Final = Direction("rising")
FALLING: Final = Direction("falling")
# A share of the model that goes.
SHARE: Final = Direction("rising", removes=True, left_out=0.0)
# The source's own bits are 16 in every dtype that is served but float32, whose weights an engine of bfloat16 takes as
# 16, too.
BITS: Final = Direction("falling", removes=True, left_out=16.0)
# The full rank is another one for each matrix.
RANK: Final = Direction("falling", removes=True)
# What best suits a model is somewhere between, and where is not known beforehand.
UNKNOWN: Final = Direction("unknown")


def around(neutral: float | None = None, *, configured: str | None = None, factor: bool = False) -> Direction:
    """The direction of a field that changes nothing at `neutral`.

    `configured`: the field of config.json that holds the neutral value of each model. `neutral` is then that of models
    whose config.json has no such field, None if theirs is not known. `factor`: values are far from it by their
    ratio, not their difference.
    """
    return Direction("around", neutral, configured, factor)


def declared(field: FieldInfo) -> Direction | None:
    """The direction in a field's annotation: that of the whole, else of a member of a union, such as the number of
    `… | None`. None if none is written."""
    return _last(field.metadata) or _within(field.annotation)


def _within(annotation: Any) -> Direction | None:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _last(annotation.__metadata__) or _within(annotation.__origin__)
    if origin in {Union, UnionType}:
        return next((found for member in get_args(annotation) if (found := _within(member)) is not None), None)
    return None


def _last(metadata: Sequence[Any]) -> Direction | None:
    # What is written around a named annotation is behind what that brings.
    return next((one for one in reversed(metadata) if isinstance(one, Direction)), None)
