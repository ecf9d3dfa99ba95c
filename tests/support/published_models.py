"""Checkpoints of published sizes, of which only the shapes are there, and cards of published memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from app.models.checkpoint import CheckpointInfo, inspect
from app.models.safetensors_header import TensorInfo
from app.models.shapes import expected_tensors

# Total memory as nvidia-smi prints it, in MiB: RTX 4090, A100 40GB, H100 80GB, H200 141GB.
CARDS: Final = {24: 24564, 40: 40960, 80: 81559, 141: 143771}
# Parameters as published; layers, hidden size, heads, those of keys and values, inner size, vocabulary.
MODELS: Final[dict[str, tuple[int, int, int, int, int, int, int]]] = {
    "Qwen2.5-0.5B": (494_032_768, 24, 896, 14, 2, 4864, 151_936),
    "Llama-3.2-3B": (3_212_749_824, 28, 3072, 24, 8, 8192, 128_256),
    "Llama-3.1-8B": (8_030_261_248, 32, 4096, 32, 8, 14336, 128_256),
    "Qwen2.5-14B": (14_770_033_664, 48, 5120, 40, 8, 13824, 152_064),
    "Qwen2.5-32B": (32_763_876_352, 64, 5120, 40, 8, 27648, 152_064),
    "Llama-3.1-70B": (70_553_706_496, 80, 8192, 64, 8, 28672, 128_256),
}


def bytes_of(card: int) -> int:
    """Memory of one of `CARDS`, in bytes."""
    return CARDS[card] * 1024**2


def info_of(name: str, tiny: Callable[..., Path]) -> CheckpointInfo:
    """What is known of one of `MODELS`; its folder is that of a tiny model."""
    parameters, layers, hidden, heads, kv_heads, inner, vocabulary = MODELS[name]
    kind = "qwen2" if name.startswith("Qwen") else "llama"
    small = inspect(tiny(kind))
    config: dict[str, Any] = small.config | {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "tie_word_embeddings": name in ("Qwen2.5-0.5B", "Llama-3.2-3B"),
    }
    shapes = expected_tensors(small.architecture, config)
    tensors = {tensor: TensorInfo("BF16", tuple(shape), "model.safetensors") for tensor, shape in shapes.items()}
    info = replace(small, config=config, tensors=tensors, layers=layers, hidden_size=hidden, vocabulary=vocabulary)
    assert info.parameters == parameters
    return info
