"""Checkpoints that were made to do harm to whoever looks into them."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

from tests.support.copies import edit_json

HOSTILE = "re:(([a-z0-9._])+)+!"
W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int"},
            "input_activations": {"num_bits": 8, "type": "int", "dynamic": True},
        }
    },
}


def patterned(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config=W8A8 | {"ignore": [HOSTILE]})


def backtracking(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config=W8A8 | {"ignore": [r"re:(?=(.+)+!).*"]})


def layered(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=200_000)


def deeper(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=10**9)


def headed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10**8) + b"{" * 10**8)


def configured(folder: Path) -> None:
    os.truncate(folder / "config.json", 10**9)


def nested(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 4_000_000)


def listed(folder: Path) -> None:
    """As many lists as a tokenizer's file has room for: more memory than is allowed, or as long as that takes."""
    (folder / "tokenizer.json").write_text("[" + "[[]]," * (12 * 1024**2) + "0]")


# How a sound folder becomes one, and the code of the refusal.
HOSTILE_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pattern": (patterned, ""),  # legal, and matched in linear time
    "look_ahead": (backtracking, "checkpoint_unsupported"),
    "layers_200000": (layered, "checkpoint_shape_mismatch"),
    "layers_1e9": (deeper, "checkpoint_shape_mismatch"),
    "header_100mb": (headed, "checkpoint_corrupt"),
    "config_1gb": (configured, "checkpoint_corrupt"),
    "nesting": (nested, "checkpoint_corrupt"),
    "tokenizer_of_lists": (listed, "checkpoint_unsupported"),
}
