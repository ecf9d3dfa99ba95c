"""A recipe: steps in turn, of every type that a module of this package has. The names of types are public."""

from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args, get_origin

from pydantic import Field, TypeAdapter

import app.recipes
from app.recipes.base import Step


def _types(of: type[Step]) -> Iterator[type[Step]]:
    """The classes below one that have a type of their own."""
    for step in of.__subclasses__():
        if get_origin(step.model_fields["type"].annotation) is Literal:
            yield step
        yield from _types(step)


def _steps() -> dict[str, type[Step]]:
    for module in iter_modules(app.recipes.__path__, "app.recipes."):
        import_module(module.name)
    found = sorted(_types(Step), key=lambda step: step.__module__)
    return {get_args(step.model_fields["type"].annotation)[0]: step for step in found}


# Public name → class.
STEPS: Final = _steps()

if TYPE_CHECKING:
    RecipeStep = Step
else:
    RecipeStep = Annotated[reduce(or_, STEPS.values()), Field(discriminator="type")]
Recipe = Annotated[tuple[RecipeStep, ...], Field(max_length=16)]
RECIPE: Final[TypeAdapter[Recipe]] = TypeAdapter(Recipe)
