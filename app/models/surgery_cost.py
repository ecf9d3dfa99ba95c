"""What a recipe takes to make its checkpoint, from shapes and settings alone."""

from __future__ import annotations

import math

from app.models import pace
from app.models.calibration_size import TOKENS_PER_INPUT, sized, widest_input
from app.models.checkpoint import CheckpointInfo
from app.models.pace import Pace
from app.models.steps import check_recipe
from app.models.text_size import measure
from app.models.training import measured_tokens
from app.recipes.base import Calibrated, Step
from app.recipes.recipe import Recipe
from app.settings import Settings


def surgery_cost(
    info: CheckpointInfo, recipe: Recipe, here: Pace, reference: CheckpointInfo, settings: Settings
) -> tuple[float, tuple[str, ...]]:
    """(seconds in which a recipe makes its checkpoint, what is assumed of them)."""
    if not recipe:
        return 0.0, ()
    seconds = here.seconds(pace.CHANGED, info.parameters)
    looking = [
        sized(step, info, measure(step.calibration, settings)[1])
        for step in recipe
        if isinstance(step, Calibrated) and step.reads_text
    ]
    if not looking:
        return seconds, ()
    tokens = sum(step.text_tokens for step in looking)
    written = sum(step.written_tokens for step in looking)
    trained = sum(step.trained_tokens for step in looking)
    run = _measured(info, recipe, reference)
    steps = "a step that looks" if len(looking) == 1 else f"{len(looking)} steps that look"
    told = f"{steps} at {tokens:,} calibration tokens"
    if written:
        told += f" and {written:,} that the reference writes itself"
    if trained:
        told += f", trained on {trained:,} of them forward and backward, each as often as it comes"
    if run:
        told += f"; what units cost at each width is measured, which is as much as {run:,.0f} tokens through the model"
    seconds += here.seconds(pace.WRITTEN, written * reference.parameters)
    seconds += here.seconds(pace.TREATED, (tokens + written) * info.parameters)
    seconds += here.seconds(pace.MEASURED, run * info.parameters)
    for step in looking:
        seconds += here.seconds(pace.TRAINED[step.trained_in], step.trained_tokens * info.parameters)
        seconds += step.trained_seconds
    how = "computed" if here.card else "measured on a 2-core CPU"
    return seconds, (f"{told}, in proportion to tokens and parameters, as {how}", *_short_of_text(info, looking))


def _short_of_text(info: CheckpointInfo, looking: list[Calibrated]) -> tuple[str, ...]:
    """Names the shortest text of a step with second moments of inputs, if it is short for the model."""
    widest = widest_input(info)
    tokens = [step.text_tokens + step.written_tokens for step in looking if step.squares]
    fewest, enough = min(tokens, default=math.inf), TOKENS_PER_INPUT * widest
    if fewest >= enough:
        return ()
    told = f"{fewest:,} calibration tokens are fewer than {TOKENS_PER_INPUT} per input of the widest layer ({widest:,})"
    return (f"{told}; give {enough:,} tokens of `calibration`, such as a file or `self:{enough}`",)


def _measured(info: CheckpointInfo, recipe: Recipe, reference: CheckpointInfo) -> float:
    """Tokens that mixtures of widths run the model over to measure their units, each mixture on what steps before it
    leave."""
    found: list[float] = []

    def see(given: CheckpointInfo, step: Step, _: str) -> None:
        found.append(measured_tokens(step, given))

    check_recipe(info, recipe, pointer="/candidate/recipe", beside=see, reference=reference)
    return sum(found)
