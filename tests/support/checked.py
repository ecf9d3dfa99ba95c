"""Recipes that are held against a checkpoint, as `check_recipe` does it, and what it refuses."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.steps import check_recipe
from app.recipes.recipe import Recipe

Step = dict[str, Any]
Source = Path | CheckpointInfo
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe(*steps: Step) -> Recipe:
    """The parsed steps."""
    return RECIPE.validate_python(steps)


def checked(source: Source, *steps: Step, **more: Any) -> CheckpointInfo:
    """What the checkpoint will be; raises what is refused, with pointers below /r."""
    info = inspect(source) if isinstance(source, Path) else source
    return check_recipe(info, recipe(*steps), pointer="/r", **more)


def refusal(source: Source, *steps: Step, **more: Any) -> HemostatError:
    """The error, which has a hint."""
    with pytest.raises(HemostatError) as caught:
        checked(source, *steps, **more)
    assert caught.value.hint
    return caught.value


def refused(source: Source, *steps: Step, **more: Any) -> tuple[ErrorCode, str]:
    """(code, pointer below the recipe) of the error."""
    error = refusal(source, *steps, **more)
    return error.code, error.pointer.removeprefix("/r")


def wrongly_refused(rows: Iterable[tuple[Source, list[Step], ErrorCode, str]]) -> list[str]:
    """The rows (checkpoint, steps, code, pointer below the recipe) that are not refused so."""
    found = []
    for source, steps, code, pointer in rows:
        try:
            checked(source, *steps)
        except HemostatError as error:
            if (error.code, error.pointer, bool(error.hint)) != (code, f"/r{pointer}", True):
                found.append(f"{steps}: {error.code} at {error.pointer}")
        else:
            found.append(f"{steps}: taken")
    return found
