"""A recipe applied to a checkpoint: a new checkpoint in the store, and a manifest of what was changed.

Source, recipe, calibration text, reference (for methods that look at it) and the versions of the surgery decide every
byte of weights and configuration. The recipe is done in stages: neighbouring steps that change one weight at a time go
through the weights together, every other step is a stage of its own. What each stage leaves is an entry of the store,
named by the recipe up to there: recipes with the same beginning share the work.
"""

from pathlib import Path
from typing import Required, TypedDict, Unpack

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, fingerprint
from app.recipes.base import Calibrated, Step
from app.recipes.merge import AdapterLora, MergeLinear
from app.recipes.recipe import Recipe
from workers.surgery.application import Application, Others
from workers.surgery.calibration_text import CalibrationText, CalibrationTexts
from workers.surgery.callbacks import (
    CheckCancelled,
    MakeRoom,
    Progress,
    never_cancelled,
    no_progress,
    room_enough,
)
from workers.surgery.modified import Modified
from workers.surgery.safetensors_writer import SHARD_BYTES
from workers.surgery.store import CheckpointStore


class Given(TypedDict, total=False):
    """What `application` takes beside checkpoint and recipe."""

    device: Required[str]
    store: Required[CheckpointStore]
    reference: CheckpointInfo | None
    calibration: CalibrationTexts
    others: Others
    make_room: MakeRoom
    progress: Progress
    check_cancelled: CheckCancelled
    shard_bytes: int


def no_calibration(step: Calibrated) -> CalibrationText:
    """Used if a caller has no text to give."""
    raise HemostatError(
        ErrorCode.RECIPE_NOT_APPLICABLE,
        f"{step.type} reads text, but this call has no text source",
        hint="run it as a job, which reads text sources",
    )


def nothing_else(step: Step) -> Path | None:
    """Used if a caller gives no adapters and no other models."""
    if isinstance(step, AdapterLora | MergeLinear):
        raise HemostatError(
            ErrorCode.RECIPE_NOT_APPLICABLE,
            f"{step.type} needs an adapter or another model, but this call has none",
            hint="run it as a job, which knows models.toml and HEMOSTAT_ADAPTER_ROOT",
        )
    return None


def application(
    source: CheckpointInfo,
    recipe: Recipe,
    *,
    device: str,
    store: CheckpointStore,
    reference: CheckpointInfo | None = None,
    calibration: CalibrationTexts = no_calibration,
    others: Others = nothing_else,
    make_room: MakeRoom = room_enough,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
    shard_bytes: int = SHARD_BYTES,
) -> Application:
    """A recipe on a checkpoint, to be looked up in the store or made, on `device`.

    `reference` is the unmodified model that mitigations align with (default: the source). `calibration` gives the text
    of a step that looks at activations. `others` gives the folder of an adapter or other model that a step takes.
    `make_room` is asked before steps are done whose result is not in the store.
    `progress(phase, done, total)`; `check_cancelled` is called between pieces of work of at most a second or so.
    """
    return Application(
        source,
        fingerprint(source.path, check_cancelled=check_cancelled),
        reference or source,
        recipe,
        device,
        store,
        calibration,
        others,
        make_room,
        progress,
        check_cancelled,
        shard_bytes,
    )


def apply(source: CheckpointInfo, recipe: Recipe, **given: Unpack[Given]) -> Modified:
    """The modified checkpoint, from the store if it is there; see `application`. Raises what `Application.run`
    raises."""
    return application(source, recipe, **given).run()
