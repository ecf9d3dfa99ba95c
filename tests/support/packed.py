"""Checkpoints that somebody else packed: compressed-tensors files as llm-compressor writes them, without data."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

_WEIGHTS: dict[str, dict[str, Any]] = {
    "W8A8": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
    "FP8": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"},
    "W4A16": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"},
    "W4A16-ASYM": {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group"},
    "W8A16": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
}
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "W8A8": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True},
    "FP8": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True},
}
SCHEMES = tuple(_WEIGHTS)
# By the library's own name of a scheme: 4-bit floats with scales of groups, whose activations need no data.
FOUR_BIT_FLOATS = ("NVFP4A16", "MXFP4", "MXFP4A16")


@contextmanager
def _known_warnings() -> Iterator[None]:
    """What the packing library says on a machine without an accelerator; nothing else is silenced."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Attempting to save a model with offloaded modules", category=UserWarning
        )
        yield


def make_packed(source: Path, destination: Path, scheme: str, *, group_size: int = 64) -> Path:
    """Packs every linear layer but the head of the plain checkpoint `source` as `scheme` (of `SCHEMES` or
    `FOUR_BIT_FLOATS`) by round to nearest, no data needed, and returns `destination`. W4A16 groups must divide every
    input dimension: 64 fits SmolLM2, 64 or 32 the tiny models. Takes a few seconds for the import, then 0.1 s (tiny) to
    2 s (SmolLM2).
    """
    weights = dict(_WEIGHTS.get(scheme, {}))
    if weights.get("strategy") == "group":
        weights["group_size"] = group_size
    group: dict[str, Any] = {"targets": ["Linear"], "weights": weights}
    if scheme in _ACTIVATIONS:
        group["input_activations"] = _ACTIVATIONS[scheme]
    how: dict[str, Any] = {"config_groups": {"group_0": group}}
    if scheme in FOUR_BIT_FLOATS:
        how = {"targets": ["Linear"], "scheme": scheme}
    with _known_warnings():
        from llmcompressor import oneshot
        from llmcompressor.modifiers.quantization import QuantizationModifier

        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
        oneshot(
            model=model,
            recipe=QuantizationModifier(**how, ignore=["lm_head"]),
            log_dir=None,
        )
        model.save_pretrained(destination, save_compressed=True)
    AutoTokenizer.from_pretrained(source).save_pretrained(destination)
    return destination
