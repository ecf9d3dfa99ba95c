"""The packed form: a compressed-tensors checkpoint that vLLM's own kernels serve.

Codes, scales and zero points are packed by compressed-tensors' own compressors, and `quantization_config` is written by
its own classes. What is decided here is which module is packed how. vLLM runs q, k, v and gate, up as one product, with
one scheme. `app.models.steps.quantize` refuses a recipe that would part them.

`pack-quantized` (int32 words) is for weights alone, `int-quantized` (int8) and `float-quantized` (e4m3) for weights
that meet activations of their own width; vLLM distinguishes its kernels by that."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from app.models.modules import weights_of
from workers.surgery.quantize_grid import Quantized
from workers.surgery.step_run import StepRun

# Its import takes five seconds, also of processes that pack nothing (a replica, its shadow): functions import it.
if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationScheme

Activations = Literal["none", "dynamic", "static"]


@dataclass(frozen=True)
class Packing:
    """How modules are packed: `float_` is e4m3 (with 8 bits and one scale a channel). Activations have 8 bits and the
    weights' type: a scale a token at run time, or one fixed for the layer (`static`)."""

    bits: int
    group_size: int | None
    symmetric: bool = True
    float_: bool = False
    activations: Activations = "none"

    @property
    def format(self) -> str:
        """compressed-tensors' name of the layout."""
        if self.float_:
            return "float-quantized"
        return "pack-quantized" if self.activations == "none" else "int-quantized"

    def scheme(self, targets: list[str]) -> QuantizationScheme:
        """compressed-tensors' own description."""
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

        kind = "float" if self.float_ else "int"
        grouped: dict[str, Any] = (
            {"strategy": "channel"} if self.group_size is None else {"strategy": "group", "group_size": self.group_size}
        )
        inputs = None
        if self.activations != "none":
            inputs = QuantizationArgs(
                num_bits=8,
                type=kind,
                symmetric=True,
                strategy="token" if self.activations == "dynamic" else "tensor",
                dynamic=self.activations == "dynamic",
            )
        weights = QuantizationArgs(num_bits=self.bits, type=kind, symmetric=self.symmetric, **grouped)
        return QuantizationScheme(targets=targets, weights=weights, input_activations=inputs, format=self.format)


class Packer:
    """Packs modules of one result, then writes `quantization_config` with `finish`."""

    def __init__(self, context: StepRun) -> None:
        self._shop = context
        self._packed: dict[Packing, list[str]] = defaultdict(list)

    def put(
        self,
        module: str,
        packing: Packing,
        quantized: Quantized,
        *,
        bits: float,
        input_scale: float | None = None,
    ) -> None:
        """One linear layer by its path. `bits` a weight, for the manifest; `input_scale` where activations are static.

        Scales are taken to be exact in their 16-bit storage format already.
        """
        grid = quantized.grid
        dtype = torch.float16 if self._shop.source.tensors[f"{module}.weight"].dtype == "F16" else torch.bfloat16
        state = {"weight": quantized.weight(), "weight_scale": grid.scale_OG}
        if grid.zero_OG is not None:
            state["weight_zero_point"] = (grid.zero_OG - 2 ** (grid.bits - 1)).to(torch.int8)
        self._put(module, packing, state, dtype, bits, input_scale)

    def put_float(
        self,
        module: str,
        packing: Packing,
        weight_OI: torch.Tensor,
        scale_O1: torch.Tensor,
        *,
        bits: float,
        input_scale: float | None = None,
    ) -> None:
        """As `put`, of e4m3 weights: their values and scales, float32."""
        dtype = torch.float16 if self._shop.source.tensors[f"{module}.weight"].dtype == "F16" else torch.bfloat16
        state = {"weight": weight_OI, "weight_scale": scale_O1}
        self._put(module, packing, state, dtype, bits, input_scale)

    def _put(
        self,
        module: str,
        packing: Packing,
        state: dict[str, torch.Tensor],
        dtype: torch.dtype,
        bits: float,
        input_scale: float | None,
    ) -> None:
        from compressed_tensors.compressors import BaseCompressor

        compressor: Any = BaseCompressor.get_value_from_registry(packing.format)
        parts: dict[str, torch.Tensor] = compressor.compress(state, packing.scheme(["Linear"]))
        parts["weight_scale"] = parts["weight_scale"].to(dtype)
        if input_scale is not None:
            parts["input_scale"] = torch.tensor([input_scale], dtype=torch.float32)
        self._packed[packing].append(module)
        self._shop.put_packed(module, parts, state["weight"].to(dtype), bits=bits)

    def finish(self) -> None:
        """Writes `quantization_config`: linear layers that were not put stay plain."""
        from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

        done = {module for modules in self._packed.values() for module in modules}
        plain = [weight.module for weight in weights_of(self._shop.source) if weight.linear]
        ignore = sorted({"lm_head", *(module for module in plain if module not in done and module != "lm_head")})
        ignore = [module for module in ignore if not module.endswith("embed_tokens")]
        alone = len(self._packed) == 1
        groups = {
            f"group_{number}": packing.scheme(["Linear"] if alone else sorted(modules))
            for number, (packing, modules) in enumerate(self._packed.items())
        }
        formats = {packing.format for packing in self._packed}
        config = QuantizationConfig(
            config_groups=groups,
            ignore=ignore,
            format=formats.pop() if len(formats) == 1 else "mixed-precision",
            quantization_status=QuantizationStatus.COMPRESSED,
        )
        told: dict[str, Any] = json.loads(config.model_dump_json(exclude_none=True))
        self._shop.config["quantization_config"] = told | {"quant_method": "compressed-tensors"}
