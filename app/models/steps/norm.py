"""Normalization: which norms a step addresses, and whether the engine reads its epsilon from the configuration.

Norms are no modules of other families (`app.models.modules` knows matrices). A kind here is the norm's own name
(`input_layernorm`, `post_attention_layernorm`, `q_norm`, …), a dotted end of its path, or `norm` for the final one.
Without kinds a step takes every norm; `layers` leaves the final norm out unless it is named.
"""

from dataclasses import replace

from app.contracts.errors import ErrorCode, HemostatError, not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.modules import FLOATS, Weight, check_layers, natural_key
from app.models.nearest import suggestion
from app.models.shapes import LAYOUTS
from app.models.steps.blockwise import check_blocks, check_reference
from app.recipes.base import Step
from app.recipes.norm import NormEpsilon, NormTweak

EPSILON = "rms_norm_eps"


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The norms that the step addresses; at least one.

    Raises RECIPE_NOT_APPLICABLE (packed; an epsilon that is not in the configuration, or only for some norms),
    UNKNOWN_MODULE, and for tweaking what `check_blocks` raises.
    """
    if info.quantization is not None:
        raise not_applicable(
            f"the checkpoint is packed ({info.scheme}); a recipe changes plain weights",
            hint="put norms before the step that packs",
            pointer=pointer.rpartition("/")[0],
        )
    check_layers(info, step, pointer)
    if isinstance(step, NormEpsilon):
        _check_epsilon(info, step, pointer)
    chosen = _select(info, step, pointer)
    if isinstance(step, NormTweak):
        if step.modules is None:
            chosen = [norm for norm in chosen if norm.layer is not None]
        check_blocks(info, chosen, pointer=pointer)
    return chosen


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """The same checkpoint, perhaps with another epsilon."""
    if isinstance(step, NormEpsilon):
        return replace(info, config={**info.config, EPSILON: step.epsilon})
    return info


def against(reference: CheckpointInfo, info: CheckpointInfo, step: Step, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE if norms are tweaked to the blocks of a reference that has others, or whose
    blocks cannot be run."""
    if not isinstance(step, NormTweak):
        return
    if (info.layers, info.hidden_size) != (reference.layers, reference.hidden_size):
        raise not_applicable(
            f"the model has {info.layers} blocks of {info.hidden_size} channels, the reference {reference.layers} of "
            f"{reference.hidden_size}: their outputs cannot be compared",
            hint="put norm.tweak before steps that change the shape, or leave it out",
            pointer=pointer,
        )
    check_reference(reference, pointer=pointer)


def norms_of(info: CheckpointInfo) -> list[Weight]:
    """Every norm's weight, in the model's order."""
    found = []
    for name, tensor in info.tensors.items():
        module, _, part = name.rpartition(".")
        last = module.rpartition(".")[2]
        if part != "weight" or len(tensor.shape) != 1 or not last.endswith("norm"):
            continue
        place = in_layer(module)
        layer = None if place is None else place.layer
        found.append(Weight(name, module, layer, frozenset({last}), False, tensor.shape, tensor.dtype))
    return sorted(found, key=lambda norm: natural_key(norm.name))


def _select(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    wanted = [
        norm
        for norm in norms_of(info)
        if norm.dtype in FLOATS
        and (step.layers is None or norm.layer in set(step.layers) or (norm.layer is None and step.modules is not None))
    ]
    for index, kind in enumerate(step.modules or ()):
        if not any(norm.answers_to(kind) for norm in wanted):
            raise HemostatError(
                ErrorCode.UNKNOWN_MODULE,
                f"the model has no norm of the kind {kind!r}",
                hint=suggestion(kind, {name for norm in wanted for name in norm.kinds}, many=20),
                pointer=f"{pointer}/modules/{index}",
            )
    chosen = [norm for norm in wanted if step.modules is None or any(norm.answers_to(kind) for kind in step.modules)]
    if not chosen:
        raise not_applicable(
            f"{info.architecture} has no norm of a known name",
            hint="use a model whose norms have names that end in norm",
            pointer=pointer,
        )
    return chosen


def _check_epsilon(info: CheckpointInfo, step: Step, pointer: str) -> None:
    for field in ("layers", "modules"):
        if getattr(step, field) is not None:
            raise not_applicable(
                "config.json has one epsilon for every norm",
                hint=f"leave {field} out",
                pointer=f"{pointer}/{field}",
            )
    if EPSILON not in info.config and info.architecture not in LAYOUTS:
        raise not_applicable(
            f"config.json of this {info.architecture} has no {EPSILON}",
            hint="the step takes models with root-mean-square norms",
            pointer=pointer,
        )
