"""Deeper and wider: which layers are named, and what the configuration is afterwards."""

from collections.abc import Sequence
from typing import Any

from app.contracts.errors import not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.modules import Weight, select
from app.models.shapes import LAYOUTS, dimension
from app.models.steps.blockwise import DENSE
from app.models.steps.layers import HEAD_SIZE_FOLLOWS, HEADS_DIVIDE_HIDDEN, relayered, with_config
from app.recipes.base import Step
from app.recipes.extend import ExtendDuplicate, ExtendInterpolate, ExtendWidth

# Projections that write into the residual stream: with these at zero a layer changes nothing.
OUTPUTS = frozenset({"o_proj", "down_proj", "w2", "out_proj", "dense", "fc2"})


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the step addresses.

    Raises UNKNOWN_MODULE for a layer that is not there, and RECIPE_NOT_APPLICABLE for modules (these steps act on whole
    layers). Layers to be repeated must be neighbours. A layer to interpolate needs a next one with the same tensors.
    What cannot be widened is refused too.
    """
    if step.modules is not None:
        raise not_applicable(
            f"{step.type} acts on whole layers and takes no modules",
            hint="leave modules out",
            pointer=f"{pointer}/modules",
        )
    chosen = select(info, step, pointer=pointer)
    if isinstance(step, ExtendDuplicate):
        _check_run(step.layers or (), pointer)
    if isinstance(step, ExtendInterpolate) and info.layers - 1 in _named(info, step):
        if step.layers is not None:
            raise not_applicable(
                f"layer {info.layers - 1} is the last: there is no next one to interpolate with",
                hint=f"name layers from 0 to {info.layers - 2}",
                pointer=f"{pointer}/layers",
            )
        if info.layers < 2:
            raise not_applicable(
                "the model has one layer, but the step needs two",
                hint="use a model of two or more layers",
                pointer=pointer,
            )
    if isinstance(step, ExtendInterpolate):
        _check_alike(info, step, pointer)
    if isinstance(step, ExtendWidth):
        _check_width(info, step, pointer)
    return chosen


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """Deeper: layers put together again. Wider: more heads, more channels."""
    if isinstance(step, ExtendWidth):
        return with_config(info, widened(info, step))
    return with_config(info, relayered(info.architecture, info.config, order_of(info, step)))


def order(info: CheckpointInfo, step: Step) -> list[int | None]:
    """Which old layer each layer of the result is; None for one that an identity or interpolation step inserts."""
    if isinstance(step, ExtendWidth):
        return list(range(info.layers))
    if isinstance(step, ExtendDuplicate):
        return [*order_of(info, step)]
    new = inserted(info, step)
    return [None if number in new else layer for number, layer in enumerate(order_of(info, step))]


def order_of(info: CheckpointInfo, step: Step) -> list[int]:
    """Which old layer each layer of the result is made of."""
    named = _named(info, step)
    everything = list(range(info.layers))
    if isinstance(step, ExtendDuplicate):
        end = max(named) + 1
        return everything[:end] + everything[min(named) : end] + everything[end:]
    order = []
    for layer in everything:
        order += [layer, layer] if layer in named else [layer]
    return order


def inserted(info: CheckpointInfo, step: Step) -> dict[int, int]:
    """Number in the result → old layer before it, of each layer that an identity or interpolation step inserts."""
    found: dict[int, int] = {}
    order = order_of(info, step)
    for number in range(1, len(order)):
        if order[number] == order[number - 1]:
            found[number] = order[number]
    return found


def widened(info: CheckpointInfo, step: ExtendWidth) -> dict[str, Any]:
    """The configuration with each head `heads` times and each channel `channels` times."""
    config = dict(info.config)
    layout = LAYOUTS[info.architecture]
    heads = dimension(config, "num_attention_heads")
    config["head_dim"] = dimension(config, "head_dim", layout.head_dim or dimension(config, "hidden_size") // heads)
    config["num_key_value_heads"] = step.heads * dimension(config, "num_key_value_heads", layout.kv_heads or heads)
    config["num_attention_heads"] = step.heads * heads
    config["intermediate_size"] = step.channels * dimension(config, "intermediate_size")
    return config


def _named(info: CheckpointInfo, step: Step) -> set[int]:
    if step.layers is not None:
        return set(step.layers)
    last = info.layers - 1 if isinstance(step, ExtendInterpolate) else info.layers
    return set(range(last))


def _check_run(layers: Sequence[int], pointer: str) -> None:
    named = sorted(set(layers))
    if named != list(range(named[0], named[-1] + 1)):
        raise not_applicable(
            f"layers {', '.join(map(str, named[:12]))} are not neighbours",
            hint="name neighbouring layers, such as 8 to 23; give two steps for two blocks",
            pointer=f"{pointer}/layers",
        )


def _check_alike(info: CheckpointInfo, step: ExtendInterpolate, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE if a layer and the next one are of two kinds, such as experts and a dense MLP."""
    parts: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, tensor in info.tensors.items():
        place = in_layer(name)
        if place is not None:
            parts.setdefault(place.layer, {})[place.path] = tensor.shape
    alike = [layer for layer in range(info.layers - 1) if parts.get(layer) == parts.get(layer + 1)]
    other = next((layer for layer in sorted(_named(info, step)) if layer not in alike), None)
    if other is not None:
        raise not_applicable(
            f"layers {other} and {other + 1} have different tensors or shapes, so no layer can be put between them",
            hint=f"layers whose next one is of the same kind: {', '.join(map(str, alike[:24]))}"
            if alike
            else "no layer of this model is followed by one of its kind",
            pointer=pointer if step.layers is None else f"{pointer}/layers",
        )


def _check_width(info: CheckpointInfo, step: ExtendWidth, pointer: str) -> None:
    if info.architecture not in DENSE or LAYOUTS[info.architecture].fused:
        raise not_applicable(
            f"the layout of heads and channels of {info.architecture} cannot be widened",
            hint="it takes " + ", ".join(name for name in DENSE if not LAYOUTS[name].fused),
            pointer=pointer,
        )
    if step.layers is not None:
        raise not_applicable(
            "all layers need the same number of heads and channels",
            hint="leave layers out",
            pointer=f"{pointer}/layers",
        )
    if step.heads == 1 and step.channels == 1:
        raise not_applicable(
            "heads 1 and channels 1 widen nothing",
            hint="give heads or channels of 2 or more",
            pointer=pointer,
        )
    if step.heads > 1 and info.architecture in HEAD_SIZE_FOLLOWS:
        raise not_applicable(
            f"more heads cannot be served: vLLM's {info.architecture} divides the hidden size by the number of heads "
            "and ignores the configured head size",
            hint="widen only channels",
            pointer=f"{pointer}/heads",
        )
    heads = int(widened(info, step)["num_attention_heads"])
    if info.architecture in HEADS_DIVIDE_HIDDEN and info.hidden_size % heads:
        raise not_applicable(
            f"{heads} heads do not divide the hidden size {info.hidden_size}, which {info.architecture} requires",
            hint=f"heads may be {_told_multiples(info, heads // step.heads)}; channels may be any number",
            pointer=f"{pointer}/heads",
        )


def _told_multiples(info: CheckpointInfo, heads: int) -> str:
    fitting = [str(times) for times in range(1, 17) if info.hidden_size % (heads * times) == 0]
    return ", ".join(fitting) if len(fitting) > 1 else "1 alone"
