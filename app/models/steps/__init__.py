"""What each family of recipe steps demands of a checkpoint, and what the checkpoint is like after it.

Shapes and configuration are enough for that: a recipe of any length is refused before a weight is read.

One module a family, named as in the step's type before the dot. It has `check(info, step, pointer)`, which returns the
weights that the step addresses or raises `HemostatError`, and may have `after(info, step)`, which returns what the
checkpoint will be. Without it the checkpoint keeps its shape. `against` and `follow` look at the model that a step
aligns with, and at the steps before it. `share` shows what part of the model a field of a step takes away, `order`
which layer is which after a step that moves them.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from app.contracts import blocks
from app.contracts.errors import HemostatError, not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_step
from app.models.packing import has_fixed_grids
from app.models.simulation import section_in
from app.recipes.base import Step
from app.recipes.recipe import Recipe

Beside = Callable[[CheckpointInfo, Step, str], None]


class Rules(Protocol):
    """A family's module."""

    def check(self, info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
        """The weights that the step addresses. Raises `HemostatError`, its pointer below `pointer`."""

    def after(self, info: CheckpointInfo, step: Step) -> CheckpointInfo:
        """What the checkpoint will be; its path is still the old one."""

    def against(self, reference: CheckpointInfo, info: CheckpointInfo, step: Step, pointer: str) -> None:
        """Optional: raises where the step aligns the checkpoint with a reference that it cannot be aligned with."""

    def follow(self, before: Recipe, step: Step, pointer: str) -> None:
        """Optional: raises where the step cannot come after the steps before it."""

    def share(self, info: CheckpointInfo, step: Step, field: str) -> float | None:
        """Optional: the share of the model that a field of the step removes from the checkpoint before it, in [0, 1];
        None if that field removes none."""

    def order(self, info: CheckpointInfo, step: Step) -> list[int | None] | None:
        """Optional: of each layer after the step, which one it was before, None for one that is new. None altogether
        where the work alone can tell, since the step chooses layers by what it looks at. Without it layers keep their
        numbers wherever there are as many as before."""


def check_one(info: CheckpointInfo, step: Step, *, pointer: str) -> list[Weight]:
    """The weights that one step addresses in a checkpoint. Raises `HemostatError`."""
    rules = _rules(step)
    _check_grids_stay(info, step, pointer)
    if blocks.SECTION in info.config:
        raise not_applicable(
            "the checkpoint has block corrections, which fit only its present weights",
            hint="apply the recipe to the checkpoint without corrections, then fit corrections for the result",
            pointer=pointer,
        )
    if rules is None:
        return check_step(info, step, pointer=pointer)
    chosen = rules.check(info, step, pointer)
    if has_fixed_grids(info.quantization) and not step.at_run_time:
        raise _grids_fixed(pointer)
    section = section_in(info.config)
    if section is not None and section.fakes and hasattr(rules, "after"):  # a dtype of the cache holds for any layer
        check_layers_stay(info, rules.after(info, step), pointer)
    return chosen


def _check_grids_stay(info: CheckpointInfo, step: Step, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE if a step changes the model after grids of its activations were fixed on text."""
    section = section_in(info.config)
    if section is None or step.at_run_time:
        return
    if any(not entry.dynamic for entry in section.activations):
        raise _grids_fixed(pointer)


def _grids_fixed(pointer: str) -> HemostatError:
    return not_applicable(
        "an earlier step fixed the grids of activations, and this step changes the activations",
        hint="put this step before that one, or set `dynamic` of that step to true",
        pointer=pointer,
    )


def check_layers_stay(info: CheckpointInfo, after: CheckpointInfo, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE if layers get other numbers than what acts at run time knows them by."""
    if after.layers != info.layers:
        raise not_applicable(
            "an earlier step quantizes activations, keys or values of layers that this step renumbers",
            hint="put this step before that one",
            pointer=pointer,
        )


def check_recipe(
    info: CheckpointInfo,
    recipe: Recipe,
    *,
    pointer: str,
    beside: Beside | None = None,
    reference: CheckpointInfo | None = None,
) -> CheckpointInfo:
    """What the checkpoint will be after the recipe. `beside(info, step, pointer)` is called for each step with the
    checkpoint as it is then; `reference` is the unmodified model of the job (default: the checkpoint itself). Raises
    `HemostatError` for the first step that cannot be done."""
    source, reference = info, reference or info
    for index, step in enumerate(recipe):
        try:
            check_one(info, step, pointer=f"{pointer}/{index}")
        except HemostatError as error:
            if source.quantization is None and info.quantization is not None and error.pointer == pointer:
                # Put first, a step that packs would have the other one refused.
                twice = getattr(step, "form", None) == "packed"
                raise HemostatError(
                    error.code,
                    f"the weights are packed by a step before ({info.scheme}), and this one "
                    + ("packs them, too" if twice else "changes them"),
                    hint='one step packs a checkpoint: let it name all modules, or use form "simulated" in each'
                    if twice
                    else "put it before the step that packs",
                    pointer=f"{pointer}/{index}",
                ) from None
            raise
        if beside is not None:
            beside(info, step, f"{pointer}/{index}")
        rules = _rules(step)
        if rules is not None and hasattr(rules, "against"):
            rules.against(reference, info, step, f"{pointer}/{index}")
        if rules is not None and hasattr(rules, "follow"):
            rules.follow(recipe[:index], step, f"{pointer}/{index}")
        info = after_one(info, step)
    return info


def after_one(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """What the checkpoint will be after a step that its check takes."""
    rules = _rules(step)
    return rules.after(info, step) if rules is not None and hasattr(rules, "after") else info


def order_one(info: CheckpointInfo, step: Step) -> list[int | None] | None:
    """Which layer each one after a step was before it, None for a new one; None altogether where shapes do not tell."""
    rules = _rules(step)
    if rules is not None and hasattr(rules, "order"):
        return rules.order(info, step)
    return list(range(info.layers)) if after_one(info, step).layers == info.layers else None


def renumbering(info: CheckpointInfo, recipe: Recipe) -> tuple[int, ...]:
    """The steps, by their index, after which layer n is another one than before. `info` is the checkpoint before the
    recipe, which its check takes."""
    found = []
    for index, step in enumerate(recipe):
        if order_one(info, step) != list(range(info.layers)):
            found.append(index)
        info = after_one(info, step)
    return tuple(found)


def share_one(info: CheckpointInfo, step: Step, field: str) -> float | None:
    """The share that a step's family says a field of it removes; None if it says nothing."""
    rules = _rules(step)
    return rules.share(info, step, field) if rules is not None and hasattr(rules, "share") else None


def _rules(step: Step) -> Rules | None:
    """Of a family without a module, None: it takes what `check_step` takes and keeps every shape."""
    name = f"{__name__}.{step.rules or step.type.partition('.')[0]}"
    return cast(Rules, import_module(name)) if find_spec(name) else None
