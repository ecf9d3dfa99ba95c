"""A low-rank repair of every linear layer: what the serving engine would load beside the model, in PEFT's LoRA format.

This is the interface: a name, the SHA-256 of the adapter's weights, its rank, the modules it acts on. It corrects the
model from within, so it touches neither the last hidden state nor the logits; the engine has to load the folder. A
calibration cannot fit one (`NOT_FITTED` says why), so no profile holds one. The recipe step `repair.lowrank` fits such
a folder, from every layer's activations; what it repairs is served by that recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final, Self

import torch

from workers.calibrators.base import Base, number, require
from workers.calibrators.protocol import Parameter

NOT_FITTED: Final = (
    "repair adapters are fitted from the activations of every layer, of which a calibration has the last only"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class RepairAdapter(Base):
    """Names a folder with `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes them.

    `folder` is the folder's own name, beside the calibrator's files; `sha256` that of `adapter_model.safetensors`.
    `modules` are the last parts of the module names that it acts on ("q_proj").
    """

    KIND: ClassVar[str] = "repair"

    def __init__(self, folder: str, sha256: str, rank: int, modules: tuple[str, ...]) -> None:
        require(_NAME.fullmatch(folder) is not None, "the adapter's folder must be a plain name")
        require(_SHA256.fullmatch(sha256) is not None, "the adapter's fingerprint must be a SHA-256 in hex")
        require(rank >= 1, f"rank {rank}, expected at least 1")
        require(bool(modules) and all(_NAME.fullmatch(name) for name in modules), "the adapter names no modules")
        self.folder = folder
        self.sha256 = sha256
        self.rank = rank
        self.modules = modules

    def describe(self) -> Mapping[str, Parameter]:
        """What the engine needs to load it."""
        return {"folder": self.folder, "sha256": self.sha256, "rank": self.rank, "modules": ",".join(self.modules)}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """None: they are in its own folder."""
        return {}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From its description."""
        del tensors
        modules = tuple(str(parameters["modules"]).split(","))
        return cls(str(parameters["folder"]), str(parameters["sha256"]), int(number(parameters, "rank")), modules)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Itself: the engine holds its weights."""
        del device, dtype
        return self
