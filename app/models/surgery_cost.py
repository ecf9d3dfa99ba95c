"""What a recipe takes to make its checkpoint, from shapes and settings alone."""

from __future__ import annotations

import math

from app.models import pace
from app.models.calibration_size import TOKENS_PER_INPUT, sized, widest_input
from app.models.checkpoint import CheckpointInfo
from app.models.pace import Pace
from app.models.step_work import Work, work_of
from app.models.steps import check_recipe
from app.models.text_size import measure
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
    looking = [_sized(step, info, settings) for step in recipe if isinstance(step, Calibrated) and step.reads_text]
    if not looking:
        return seconds, ()
    tokens = sum(step.text_tokens for step in looking)
    written = sum(step.written_tokens for step in looking)
    trained = sum(step.trained_tokens for step in looking)
    work = _work(info, recipe, reference, settings)
    run = work.measured
    steps = "a step that looks" if len(looking) == 1 else f"{len(looking)} steps that look"
    told = f"{steps} at {tokens:,} calibration tokens"
    if written:
        told += f" and {written:,} that the reference writes itself"
    if trained:
        told += f", trained on {trained:,} of them forward and backward, each as often as it comes"
    if run:
        told += f"; what units cost at each width is measured, which is as much as {run:,.0f} tokens through the model"
    seconds += here.seconds(pace.WRITTEN, written * reference.parameters)
    seconds += here.seconds(pace.TREATED, work.passed)
    seconds += here.seconds(pace.WEIGHED, work.weighed) + here.seconds(pace.MULTIPLIED, work.multiplied)
    seconds += here.seconds(pace.MEASURED, run * info.parameters)
    for step in looking:
        seconds += here.seconds(pace.TRAINED[step.trained_in], step.trained_tokens * info.parameters)
        seconds += step.trained_seconds
    how = "computed" if here.card else "measured on a 2-core CPU"
    return seconds, (f"{told}, from tokens and shapes, as {how}", *_short_of_text(info, looking))


def _short_of_text(info: CheckpointInfo, looking: list[Calibrated]) -> tuple[str, ...]:
    """Names the shortest text of a step with second moments of inputs, if it is short for the model."""
    widest = widest_input(info)
    tokens = [step.text_tokens + step.written_tokens for step in looking if step.squares]
    fewest, enough = min(tokens, default=math.inf), TOKENS_PER_INPUT * widest
    if fewest >= enough:
        return ()
    told = f"{fewest:,} calibration tokens are fewer than {TOKENS_PER_INPUT} per input of the widest layer ({widest:,})"
    return (f"{told}; give {enough:,} tokens of `calibration`, such as a file or `self:{enough}`",)


def _sized(step: Calibrated, info: CheckpointInfo, settings: Settings) -> Calibrated:
    return sized(step, info, measure(step.calibration, settings)[1])


def _work(info: CheckpointInfo, recipe: Recipe, reference: CheckpointInfo, settings: Settings) -> Work:
    """Of all steps, each on what steps before it leave."""
    found: list[Work] = []

    def see(given: CheckpointInfo, step: Step, _: str) -> None:
        if isinstance(step, Calibrated) and step.reads_text:
            found.append(work_of(_sized(step, info, settings), given))

    check_recipe(info, recipe, pointer="/candidate/recipe", beside=see, reference=reference)
    return Work(*(sum(column) for column in zip(*found, strict=True)))
