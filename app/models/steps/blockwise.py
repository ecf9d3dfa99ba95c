"""What a step that looks at activations demands: a dense model of a known layout, and weights within its blocks."""

from collections.abc import Sequence

from app.contracts.errors import not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight
from app.models.shapes import LAYOUTS

DENSE = tuple(sorted(name for name, layout in LAYOUTS.items() if not layout.mixture))


def check_blocks(info: CheckpointInfo, weights: Sequence[Weight], *, pointer: str) -> None:
    """Raises `HemostatError(RECIPE_NOT_APPLICABLE)` for a model that cannot be run block by block, and for weights
    outside the blocks, of whose inputs nothing is gathered."""
    if info.architecture not in DENSE:
        raise not_applicable(
            f"the step runs the model block by block, which {info.architecture} does not support",
            hint=f"it supports {', '.join(DENSE)}; steps that read no text support more",
            pointer=pointer,
        )
    outside = next((weight for weight in weights if weight.layer is None), None)
    if outside is not None:
        raise not_applicable(
            f"{outside.name} is outside the decoder's layers, and the step reads activations of these layers only",
            hint="name modules of the layers; steps that read no text also take embedding and head",
            pointer=f"{pointer}/modules",
        )


def check_reference(reference: CheckpointInfo, *, pointer: str) -> None:
    """Raises `HemostatError(RECIPE_NOT_APPLICABLE)` for a reference that cannot be run block by block beside the model
    that comes near it."""
    why = None
    if reference.quantization is not None:
        why = f"is packed ({reference.scheme})"
    elif reference.architecture not in DENSE:
        why = f"is a {reference.architecture}"
    if why is not None:
        raise not_applicable(
            f"the step also runs the reference block by block, but the reference {why}",
            hint="give the plain checkpoint of a dense model as the reference, or leave the step out",
            pointer=pointer,
        )
