"""Repair: a rank that every module has room for, and a modification that can be made again where it is asked for."""

from app.contracts.errors import not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_step
from app.models.steps.blockwise import check_blocks, check_reference
from app.recipes.base import Step
from app.recipes.recipe import Recipe
from app.recipes.repair import RepairLowrank


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the step addresses.

    Raises besides what `check_step` and `check_blocks` raise `HemostatError(RECIPE_NOT_APPLICABLE)` for a rank that is
    not below the smaller dimension of a weight.
    """
    chosen = check_step(info, step, pointer=pointer)
    check_blocks(info, chosen, pointer=pointer)
    if isinstance(step, RepairLowrank):
        for weight in sorted(chosen, key=lambda one: min(one.shape)):  # the smallest says what is possible
            if step.rank >= min(weight.shape):
                most = min(min(other.shape) for other in chosen) - 1
                raise not_applicable(
                    f"rank {step.rank} is not below the smaller dimension of {weight.name} {list(weight.shape)}: "
                    "the weight itself would be smaller",
                    hint=f"give a rank of at most {most}, or name modules that are larger",
                    pointer=f"{pointer}/rank",
                )
    return chosen


def against(reference: CheckpointInfo, info: CheckpointInfo, step: Step, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE if the reference is of another kind than the model, or packed."""
    del step
    why = None
    if info.architecture != reference.architecture:
        why = f"is a {reference.architecture}, the model a {info.architecture}"
    elif info.hidden_size != reference.hidden_size:
        why = f"has hidden size {reference.hidden_size}, the model {info.hidden_size}"
    elif info.vocabulary != reference.vocabulary:
        why = f"has {reference.vocabulary} tokens, the model {info.vocabulary}"
    if why is not None:
        raise not_applicable(
            f"the repair needs the reference that this model was made from, but the reference {why}",
            hint="give the original of this model as the reference; a model of another width cannot be repaired",
            pointer=pointer,
        )
    check_reference(reference, pointer=pointer)


def follow(before: Recipe, step: Step, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE if the modification is to be made again and a step before it needs more than a
    weight."""
    if not isinstance(step, RepairLowrank) or step.iterations == 1:
        return
    for other in before:
        if not other.local:
            raise not_applicable(
                f"`iterations` repeats the earlier steps per weight, and {other.type} needs more than one weight",
                hint=(
                    "leave iterations out, or write the steps several times: a repaired model may be quantized and "
                    "repaired again"
                ),
                pointer=f"{pointer}/iterations",
            )
    if not before:
        raise not_applicable(
            "`iterations` repeats the earlier steps, and there are none",
            hint="leave iterations out, or put the quantization or pruning into the same recipe",
            pointer=f"{pointer}/iterations",
        )


def packed_base(recipe: Recipe, pointer: str) -> Recipe:
    """What a repair at the end of a recipe is served beside: the steps before it, those that can pack packed.

    Raises RECIPE_NOT_APPLICABLE if the recipe does not end with a repair, or if no step packs. So it does if the packed
    weights would not be those that the repair was made for, and for quantized activations, which it would not see.
    """
    *before, last = recipe or (None,)
    base = tuple(step.model_copy(update={"form": "packed"}) if hasattr(step, "form") else step for step in before)
    why = None
    if not isinstance(last, RepairLowrank):
        why = "the recipe does not end with repair.lowrank"
    elif last.iterations > 1:
        why = "the weights below this repair were made again in rounds (`iterations`), and are not packed"
    elif not any(hasattr(step, "form") for step in base):
        why = "no step before the repair can pack weights, and the merged checkpoint needs no more memory"
    elif any(getattr(step, "mixed", False) for step in base):
        why = "a step before the repair mixes widths, and packed ones are not the same"
    elif any(_rounds_inputs(step) for step in base):
        why = "a step before the repair quantizes activations, which the adapter would not see"
    if why is not None:
        raise not_applicable(
            f"the repair cannot be served beside packed weights: {why}",
            hint="leave `repair` out, and deploy the recipe itself",
            pointer=pointer,
        )
    return base


def _rounds_inputs(step: Step) -> bool:
    return (
        step.type == "quantize.activations"
        or getattr(step, "activation_bits", None) is not None
        or getattr(step, "activations", "none") != "none"
    )
