"""A configuration whose layers are put together again: which of the old ones is where."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.models.checkpoint import CheckpointInfo, TensorInfo
from app.models.shapes import dimension, expected_tensors

# Architectures whose layers differ by their number unless the configuration lists them: each n-th attends to all.
_FULL_EVERY = {"Gemma2ForCausalLM": 2, "Gemma3ForCausalLM": 6}
# Architectures whose configuration class takes only numbers of heads that divide the hidden size.
HEADS_DIVIDE_HIDDEN = frozenset({"LlamaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})
# Architectures whose size of a head vLLM computes from the hidden size, whatever the configuration says.
HEAD_SIZE_FOLLOWS = frozenset({"Qwen2ForCausalLM"})
# Lists with an entry a layer.
_LISTS = ("layer_types", "no_rope_layers")


def relayered(architecture: str, config: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The configuration of a model whose layer i is the old layer `order[i]`; what a layer is stays with it."""
    old = dimension(config, "num_hidden_layers")
    changed = dict(config) | {"num_hidden_layers": len(order)}
    kinds = config.get("layer_types") or _kinds_by_number(architecture, config, old)
    if kinds:
        changed["layer_types"] = kinds
    for name in _LISTS:
        if isinstance(changed.get(name), list) and len(changed[name]) == old:
            changed[name] = [changed[name][layer] for layer in order]
    if isinstance(config.get("max_window_layers"), int):
        changed["max_window_layers"] = sum(layer < config["max_window_layers"] for layer in order)
    stride = config.get("decoder_sparse_step") or 1
    if config.get("mlp_only_layers") or stride != 1:
        dense = set(config.get("mlp_only_layers") or ()) | {layer for layer in range(old) if (layer + 1) % stride}
        changed["mlp_only_layers"] = [number for number, layer in enumerate(order) if layer in dense]
        changed["decoder_sparse_step"] = 1
    return changed


def _kinds_by_number(architecture: str, config: dict[str, Any], layers: int) -> list[str] | None:
    """What each layer attends to, where its number alone says so: it must be written down, now that numbers change."""
    every = _FULL_EVERY.get(architecture)
    if every:
        every = int(config.get("sliding_window_pattern") or every)
        full = {layer for layer in range(layers) if (layer + 1) % every == 0}
    elif config.get("use_sliding_window") and isinstance(config.get("max_window_layers"), int):
        full = set(range(config["max_window_layers"]))
    else:
        return None
    return ["full_attention" if layer in full else "sliding_attention" for layer in range(layers)]


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
