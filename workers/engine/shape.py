"""When two checkpoints can share one engine: same architecture, same sizes, same packing, same tensors.

vLLM reads `config.json` once, at start. Whatever in it the model reads (a norm's epsilon, a RoPE factor) must be the
same for weights that are swapped in. Only what no forward pass reads may differ.
"""

import json
from typing import Any

from app.models.checkpoint import CheckpointInfo
from workers.engine.split import WHOLE, Split

# Fields of config.json that no forward pass reads.
_UNREAD = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "torch_dtype",  # the engine's dtype is given, and tensors are cast to it
        "dtype",
        "use_cache",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "initializer_range",
        "quantization_config",  # told below, without what changes with the packer's version
        "compression_config",
    }
)
_UNREAD_PACKING = frozenset({"version", "global_compression_ratio", "quantization_status"})
# Left out by the pooling runner, which has no head.
_HEAD = "lm_head."


def shape_key(info: CheckpointInfo) -> str:
    """Equal for checkpoints that one engine can hold one after the other."""
    config = {name: value for name, value in info.config.items() if name not in _UNREAD}
    packing = {name: value for name, value in (info.quantization or {}).items() if name not in _UNREAD_PACKING}
    return json.dumps([config, packing, packing_signature(info)], sort_keys=True, default=str)


def packing_signature(info: CheckpointInfo) -> str:
    """How the weights are packed, in a line: `plain`, `int8 channel symmetric / int8 token dynamic symmetric`."""
    groups = (info.quantization or {}).get("config_groups") or {}
    if not groups:
        return "plain"
    told = {_group(group) for group in groups.values()}
    return " + ".join(sorted(told))


def same_tensors(one: CheckpointInfo, other: CheckpointInfo) -> bool:
    """Whether both hold the same tensors, by name, dtype and shape: so q, k and v, gate and up, come together."""
    return _signature(one) == _signature(other)


def kv_bytes_per_token(config: dict[str, Any], item_bytes: int, split: Split = WHOLE) -> int:
    """Bytes of keys and values that one token takes in all layers that a process of a split model holds; an upper bound
    where layers keep less."""
    layers = -(-int(config.get("num_hidden_layers") or 0) // split.pipeline)
    heads = int(config.get("num_attention_heads") or 1)
    kv_heads = -(-int(config.get("num_key_value_heads") or heads) // split.tensor)
    head = int(config.get("head_dim") or int(config.get("hidden_size") or 0) // heads)
    return 2 * layers * kv_heads * head * item_bytes


def _signature(info: CheckpointInfo) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in info.tensors.items() if not name.startswith(_HEAD)}


def _group(group: dict[str, Any]) -> str:
    parts = [_arguments(group.get("weights"))]
    if group.get("input_activations"):
        parts.append(_arguments(group["input_activations"]))
    if group.get("output_activations"):
        parts.append(_arguments(group["output_activations"]))
    return " / ".join(parts)


def _arguments(told: dict[str, Any] | None) -> str:
    if not told:
        return "plain"
    words = [f"{told.get('type', 'int')}{told.get('num_bits')}", str(told.get("strategy"))]
    if str(told.get("strategy")).endswith("group"):
        words.append(str(told.get("group_size")))  # on a GPU it decides the kernel
    if told.get("dynamic"):
        words.append("dynamic")
    words.append("symmetric" if told.get("symmetric", True) else "asymmetric")
    if told.get("actorder"):
        words.append(f"actorder {told['actorder']}")
    return " ".join(words)
