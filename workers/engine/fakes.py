"""Quantized activations, keys and values in vLLM's modules, as a checkpoint's section asks for. Imports vLLM late.

*Activations*: a linear layer is run on the codes of its input (whole numbers, or e4m3's), which bf16 holds exactly. The
result is multiplied by the scale, then the bias is added. A kernel of such codes computes the same, up to the
accumulation and one more rounding of the result to the engine's dtype. *Keys and values* are quantized and dequantized
before vLLM stores them, keys after the rotary embedding; what is stored is rounded to the engine's dtype. A *dtype* of
the cache is vLLM's own.
"""

import re
from collections.abc import Callable
from copy import copy
from typing import Any, Final, Literal, NamedTuple

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION, SimulatedActivations, SimulatedKvCache, Simulation
from workers.engine import vllm_names as vllm
from workers.surgery import e4m3
from workers.surgery.even_grid import codes, codes_on, on_grid

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")
NO_LAYER = -1
# The power of two above every number of e4m3.
_ABOVE_E4M3: Final = 512.0


class _Grid(NamedTuple):
    """How a layer's input is rounded; `fixed` is (scale, zero), None if each token has its own."""

    kind: Literal["int", "float"]
    bits: int
    symmetric: bool
    fixed: tuple[float, int] | None

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
        """(codes (T, I), float32; their scale (T, 1), or one for all)."""
        if self.kind == "float":
            return e4m3.codes(x) if self.fixed is None else (e4m3.codes_on(x, self.fixed[0]), self.fixed[0])
        if self.fixed is None:
            return codes(x, bits=self.bits, symmetric=self.symmetric)
        return codes_on(x, self.fixed, bits=self.bits, symmetric=self.symmetric), self.fixed[0]

    @property
    def power(self) -> float:
        """A power of two above every code."""
        return _ABOVE_E4M3 if self.kind == "float" else float(2**self.bits)


def fake_activations(model: torch.nn.Module, section: Simulation) -> None:
    """Linear layers run on the codes of their inputs. Raises CHECKPOINT_UNSUPPORTED."""
    others = _elsewhere(model)
    named_here = ((module, entry) for entry in section.activations for module in entry.modules)
    wanted = {module: entry for module, entry in named_here if _layer_of(module) not in others}
    parts_of: dict[str, list[str]] = dict(getattr(model, "packed_modules_mapping", None) or {})
    for path, module in model.named_modules():
        if not isinstance(module, vllm.LinearBase):
            continue
        parent, _, last = path.rpartition(".")
        parts = [f"{parent}.{part}" for part in parts_of.get(last, [last])]
        named = [part for part in parts if part in wanted]
        if not named:
            continue
        told = {_grid_of(wanted[part], part) for part in named}
        if len(named) < len(parts) or len(told) > 1:
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"{SECTION}: vLLM runs {', '.join(parts)} as one layer, but their grids differ",
                hint="quantize their input together",
            )
        _on_codes(module, told.pop())
        for part in named:
            del wanted[part]
    _refuse_unknown(sorted(wanted))


def _grid_of(entry: SimulatedActivations, module: str) -> _Grid:
    return _Grid(entry.kind, entry.bits, entry.symmetric, None if entry.scales is None else entry.scales[module])


def _on_codes(linear: Any, grid: _Grid) -> None:
    """The layer's kernel is given codes. They are divided by a power of two, so that f16 holds their products."""
    linear.quant_method = copy(linear.quant_method)  # it may be shared with layers that the section does not name
    kernel: Callable[..., torch.Tensor] = linear.quant_method.apply
    power = grid.power

    # Each token's grid is of its whole input, of which a part of a split layer sees its own columns.
    parted = getattr(linear, "input_is_parallel", False) and linear.tp_size > 1 and grid.fixed is None

    def apply(layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        codes_TI, scale = grid.encode(vllm.all_gather(x) if parted else x)
        if parted:
            codes_TI = codes_TI.chunk(layer.tp_size, dim=-1)[layer.tp_rank].contiguous()
        made_TO = kernel(layer, codes_TI.div_(power).to(x.dtype), None).to(torch.float32) * (scale * power)
        return (made_TO if bias is None else made_TO + bias).to(x.dtype)

    linear.quant_method.apply = apply


def fake_kv_cache(model: torch.nn.Module, section: Simulation) -> None:
    """Attention stores keys and values on grids. Raises CHECKPOINT_UNSUPPORTED."""
    keys = {layer: entry for entry in section.simulated_kv if entry.k_bits is not None for layer in entry.layers}
    values = {layer: entry for entry in section.simulated_kv if entry.v_bits is not None for layer in entry.layers}
    left = (set(keys) | set(values)) - _elsewhere(model)
    for module in model.modules():
        if not isinstance(module, vllm.Attention):
            continue
        layer = _layer_of(module.layer_name)
        if layer in left:
            left.discard(layer)
            _store_on_grids(module, keys.get(layer), values.get(layer))
    _refuse_unknown([f"layers.{layer}" for layer in sorted(left)])


def _store_on_grids(attention: Any, keys: SimulatedKvCache | None, values: SimulatedKvCache | None) -> None:
    size: int = attention.head_size

    def before(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        query, key, value = (*args, *(named.pop(name) for name in ("query", "key", "value")[len(args) :]))[:3]
        if keys is not None and keys.k_bits is not None:
            key = grouped(key, keys.k_bits, keys.group_size or size, symmetric=keys.symmetric)
        if values is not None and values.v_bits is not None:
            value = grouped(value, values.v_bits, values.group_size or size, symmetric=values.symmetric)
        return (query, key, value, *args[3:]), named

    attention.register_forward_pre_hook(before, with_kwargs=True)


def grouped(x: torch.Tensor, bits: int, group: int, *, symmetric: bool) -> torch.Tensor:
    """x quantized and dequantized, a grid for each `group` neighbours along the last dimension."""
    return on_grid(x.reshape(-1, group), bits=bits, symmetric=symmetric).reshape(x.shape)


def _layer_of(module: str) -> int:
    """The layer that a module is or belongs to; NO_LAYER if there is none."""
    found = _LAYER.search(module)
    return int(found[1]) if found else NO_LAYER


def _elsewhere(model: Any) -> set[int]:
    """The layers that another process holds."""
    missing = (name for name, module in model.named_modules() if isinstance(module, vllm.PPMissingLayer))
    return {_layer_of(name) for name in missing} - {NO_LAYER}


def _refuse_unknown(names: list[str]) -> None:
    if names:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"{SECTION} names {names[0]} and {len(names) - 1} more that the engine's model does not have",
            hint="apply the recipe again to the present checkpoint",
        )
