"""A configuration whose layers are put together anew: which of the old ones stands where."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.models.checkpoint import CheckpointInfo, TensorInfo
from app.models.shapes import expected_tensors

# Architectures whose layers differ by their number unless the configuration lists them: each n-th attends to all.
_FULL_EVERY = {"Gemma2ForCausalLM": 2, "Gemma3ForCausalLM": 6}
# Architectures whose configuration class takes only numbers of heads that divide the hidden size.
HEADS_DIVIDE_HIDDEN = frozenset({"LlamaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})
# Architectures whose size of a head vLLM computes from the hidden size, whatever the configuration says.
HEAD_SIZE_FOLLOWS = frozenset({"Qwen2ForCausalLM"})
# Lists of layer numbers.
_NUMBERS = ("mlp_only_layers",)
# Lists with an entry a layer.
_LISTS = ("layer_types", "no_rope_layers")


def relayered(architecture: str, config: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The configuration of a model whose layer i is the old layer `order[i]`; what a layer is stays with it."""
    old = int(config["num_hidden_layers"])
    changed = dict(config) | {"num_hidden_layers": len(order)}
    every = _FULL_EVERY.get(architecture)
    if every and not config.get("layer_types"):
        every = int(config.get("sliding_window_pattern") or every)
        changed["layer_types"] = [
            "full_attention" if (layer + 1) % every == 0 else "sliding_attention" for layer in range(old)
        ]
    for name in _LISTS:
        if changed.get(name):
            changed[name] = [changed[name][layer] for layer in order]
    for name in _NUMBERS:
        if changed.get(name):
            changed[name] = [number for number, layer in enumerate(order) if layer in set(config[name])]
    return changed


def with_config(info: CheckpointInfo, config: dict[str, Any]) -> CheckpointInfo:
    """The checkpoint as it will be with that configuration: its tensors are those that it calls for, in the dtype that
    its weights have now. Of an architecture whose layout is not known the tensors stay as they are."""
    shapes = expected_tensors(info.architecture, config)
    changed = replace(info, config=config, layers=int(config["num_hidden_layers"]))
    if shapes is None:
        return changed
    first = next(iter(info.tensors.values()))
    tensors = {name: _tensor(first, shape) for name, shape in shapes.items()}
    return replace(changed, tensors=tensors, bytes=sum(tensor.bytes for tensor in tensors.values()))


def _tensor(like: TensorInfo, shape: tuple[int, ...]) -> TensorInfo:
    return replace(like, shape=shape)
