"""Which way a number is stronger: found wherever its annotation says it, and seen by nothing else."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from app.recipes.base import Bits, Sparse, Step
from app.recipes.strength import BITS, FALLING, RISING, UNKNOWN, around, declared

WARM = around(1.0, factor=True)


class _Bare(Step):
    type: Literal["made.up"]
    whole: Annotated[int, Field(ge=1)]
    optional: Annotated[float, Field(gt=0, le=10)] | None = Field(default=None, description="Told.")
    choice: Literal[4, 8] | None = None
    around_a_union: Annotated[float, Field(gt=0)] | None = None
    named: Annotated[int, Field(ge=2, le=8)] | None = None


class _Told(Step):
    type: Literal["made.up"]
    whole: Annotated[int, Field(ge=1), FALLING]
    optional: Annotated[float, Field(gt=0, le=10), WARM] | None = Field(default=None, description="Told.")
    choice: Annotated[Literal[4, 8], RISING] | None = None
    around_a_union: Annotated[Annotated[float, Field(gt=0)] | None, UNKNOWN] = None
    named: Bits | None = None


class _Narrowed(_Told):
    whole: Annotated[int, Field(ge=1, le=4), RISING]
    optional: Annotated[float, Field(gt=0, le=10)] | None = None
    named: Annotated[Bits, UNKNOWN] = 4


@pytest.mark.parametrize(
    ("field", "direction"),
    [("whole", FALLING), ("optional", WARM), ("choice", RISING), ("around_a_union", UNKNOWN), ("named", BITS)],
)
def test_a_direction_is_found_around_the_whole_and_inside_a_union(field, direction):
    assert declared(_Told.model_fields[field]) == direction
    assert declared(_Bare.model_fields[field]) is None


def test_fields_of_other_types_have_none():
    assert [declared(Step.model_fields[field]) for field in ("layers", "modules")] == [None, None]
    assert declared(Sparse.model_fields["pattern"]) is None


def test_a_class_has_the_directions_of_its_bases_but_of_the_fields_that_it_declares_itself():
    found = {name: declared(field) for name, field in _Narrowed.model_fields.items() if name != "type"}
    assert found == {
        "layers": None,
        "modules": None,
        "whole": RISING,
        "optional": None,
        "choice": RISING,
        "around_a_union": UNKNOWN,
        "named": UNKNOWN,
    }


def test_neither_schema_nor_validation_knows_of_it():
    bare, told = _Bare.model_json_schema(), _Told.model_json_schema()
    assert {**told, "title": None} == {**bare, "title": None}
    with pytest.raises(ValidationError) as refused:
        _Told.model_validate({"type": "made.up", "whole": 0, "optional": 11.0, "choice": 5, "named": 9})
    assert [fault["loc"] for fault in refused.value.errors()] == [("whole",), ("optional",), ("choice",), ("named",)]
