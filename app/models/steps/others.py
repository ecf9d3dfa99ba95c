"""Steps that take something beside the checkpoint: an adapter, or another model. Where it is, and that it fits."""

from collections.abc import Callable
from pathlib import Path

from app.contracts import blocks
from app.contracts.errors import ErrorCode, HemostatError, not_applicable
from app.models.adapters import check_adapter, inspect_adapter
from app.models.checkpoint import HARMLESS, CheckpointInfo, inspect
from app.models.paths import below
from app.models.registry import Registry
from app.recipes.base import Step
from app.recipes.merge import AdapterLora, MergeLinear
from app.settings import Settings


def takes_other(step: Step) -> bool:
    """Whether the step takes something beside the checkpoint."""
    return isinstance(step, AdapterLora | MergeLinear)


def other_of(step: Step, registry: Registry, settings: Settings, *, pointer: str = "") -> Path | None:
    """The folder of what the step takes; None if it takes nothing.

    Raises UNKNOWN_MODEL, PATH_FORBIDDEN, CHECKPOINT_NOT_FOUND if there is no root for adapters.
    """
    if isinstance(step, MergeLinear):
        entry = registry.resolve(step.other, pointer=f"{pointer}/other")
        return entry.checkpoint_path(pointer=f"{pointer}/other")
    if isinstance(step, AdapterLora):
        if settings.adapter_root is None:
            raise HemostatError(
                ErrorCode.PATH_FORBIDDEN,
                "this service takes no adapters: HEMOSTAT_ADAPTER_ROOT is not set",
                hint="ask the operator to set HEMOSTAT_ADAPTER_ROOT",
                pointer=f"{pointer}/adapter",
            )
        return below(settings.adapter_root, step.adapter, pointer=f"{pointer}/adapter")
    return None


def checker(registry: Registry, settings: Settings) -> Callable[[CheckpointInfo, Step, str], None]:
    """What looks at each step's adapter or other model while a recipe is checked."""

    def check(info: CheckpointInfo, step: Step, pointer: str) -> None:
        path = other_of(step, registry, settings, pointer=pointer)
        if path is not None:
            check_other(step, info, path, pointer=pointer)

    return check


def check_other(step: Step, info: CheckpointInfo, path: Path, *, pointer: str = "") -> None:
    """Raises `HemostatError` if the adapter or the other model does not fit the checkpoint as it is at that step."""
    if isinstance(step, AdapterLora):
        check_adapter(inspect_adapter(path, pointer=f"{pointer}/adapter"), info, pointer=f"{pointer}/adapter")
    if isinstance(step, MergeLinear):
        _check_same_shapes(info, inspect(path, pointer=f"{pointer}/other"), step.other, f"{pointer}/other")


def _check_same_shapes(info: CheckpointInfo, other: CheckpointInfo, alias: str, pointer: str) -> None:
    if other.quantization is not None:
        raise not_applicable(
            f"{alias} is packed ({other.scheme}), but the step mixes plain weights",
            hint="give the plain checkpoint",
            pointer=pointer,
        )
    why = None
    if blocks.SECTION in other.config:
        why = f"{alias} has block corrections, which a mixture would lose"
    elif other.architecture != info.architecture:
        why = f"this is a {info.architecture}, and {alias} a {other.architecture}"
    elif other.tied != info.tied:
        why = f"embedding and head are one matrix {'here' if info.tied else f'in {alias}'}, and two in the other model"
    else:
        more = [name for name in other.tensors if name not in info.tensors and not _left_out(other, name)]
        if more:
            why = f"{alias} has {more[0]}, which is not here"
    if why is not None:
        raise not_applicable(
            why,
            hint="only models of the same kind and shapes can be mixed",
            pointer=pointer,
        )
    for name, tensor in info.tensors.items():
        if _left_out(info, name):
            continue
        found = other.tensors.get(name)
        if found is None or found.shape != tensor.shape:
            has = "has none of that name" if found is None else f"has {list(found.shape)}"
            raise not_applicable(
                f"{name} is {list(tensor.shape)} here, and {alias} {has}",
                hint="only models of the same shapes can be mixed",
                pointer=pointer,
            )


def _left_out(info: CheckpointInfo, name: str) -> bool:
    """A second copy of the embedding, or what engines compute themselves."""
    return (info.tied and name == "lm_head.weight") or HARMLESS.fullmatch(name) is not None
