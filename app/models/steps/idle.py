"""Fields that decide nothing beside another field of their step: named before the job is queued, not passed over.

A field that stands at its default is not taken to have been asked for. Nor is a `seed`, which may be given to every
step of a recipe alike. Where a knob turns the field that decides, the other one counts at some of its values.
"""

from collections.abc import Collection, Mapping

from app.contracts.errors import ErrorCode, HemostatError
from app.recipes.base import Step
from app.recipes.recipe import Recipe


def check_idle(recipe: Recipe, *, pointer: str, turned: Mapping[int, Collection[str]] | None = None) -> None:
    """Raises RECIPE_NOT_APPLICABLE with the pointer of the first field that decides nothing where it stands. `turned`:
    fields that knobs turn, by the step's index."""
    for index, step in enumerate(recipe):
        by_knob = (turned or {}).get(index, ())
        for fields, because, detail, hint in step.idle():
            if any(one in by_knob for one in because):
                continue
            for field in fields:
                if field in by_knob or getattr(step, field) != _default(step, field):
                    raise HemostatError(
                        ErrorCode.RECIPE_NOT_APPLICABLE,
                        f"{field} decides nothing here: {detail}",
                        hint=f"leave {field} out, or {hint}",
                        pointer=f"{pointer}/{index}/{field}",
                    )


def _default(step: Step, field: str) -> object:
    value: object = type(step).model_fields[field].get_default(call_default_factory=True)
    return value
