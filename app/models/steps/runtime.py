"""What acts at run time: inputs of linear layers, keys and values. Weights stay; config.json gets a section."""

from dataclasses import replace
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError, not_applicable
from app.contracts.simulation import SimulatedActivations, SimulatedKvCache, StoredKvCache
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_layers, check_step
from app.models.processor import has_avx512, is_cpu_build
from app.models.shapes import LAYOUTS
from app.models.simulation import section_in, with_activations, with_kv_cache
from app.models.steps.quantize import check_inputs
from app.recipes.base import Step
from app.recipes.quantize import QuantizeActivations, QuantizeKvCache

# Values of a head that vLLM's 8-bit cache takes at a time on a CPU.
_CPU_HEAD = 32


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The linear layers whose inputs are quantized; none for keys and values.

    Raises what `check_step` and `check_inputs` raise, and GROUP_SIZE_MISMATCH. RECIPE_NOT_APPLICABLE: no engine
    simulates keys and values of this kind of attention. PACKING_UNSUPPORTED: no kernel here has this dtype of the
    cache.
    """
    if isinstance(step, QuantizeKvCache):
        _check_kv_cache(info, step, pointer)
        return []
    chosen = check_step(info, step, pointer=pointer)
    check_inputs(chosen, info, pointer)
    return chosen


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """The checkpoint with the section; grids that the text will fix are not known yet, and 1 means them."""
    if isinstance(step, QuantizeKvCache):
        return replace(info, config=with_kv_cache(info.config, kv_entry(info, step)))
    assert isinstance(step, QuantizeActivations)  # noqa: S101 - the types that are routed here
    modules = [weight.module for weight in check_step(info, step)]
    scales = None if step.dynamic else dict.fromkeys(modules, (1.0, 0))
    return replace(info, config=with_activations(info.config, activations_entry(step, modules, scales)))


def activations_entry(
    step: QuantizeActivations, modules: list[str], scales: dict[str, tuple[float, int]] | None
) -> SimulatedActivations:
    """What the step leaves in config.json."""
    return SimulatedActivations(
        bits=step.bits, dynamic=step.dynamic, symmetric=step.symmetric, modules=tuple(modules), scales=scales
    )


def kv_entry(info: CheckpointInfo, step: QuantizeKvCache) -> SimulatedKvCache | StoredKvCache:
    """What the step leaves in config.json."""
    if step.dtype is not None:
        return StoredKvCache(dtype=step.dtype)
    return SimulatedKvCache(
        k_bits=step.k_bits,
        v_bits=step.v_bits,
        group_size=step.group_size,
        symmetric=step.symmetric,
        layers=tuple(sorted(set(step.layers))) if step.layers else tuple(range(info.layers)),
    )


def head_size(info: CheckpointInfo) -> int:
    """Values of one head."""
    layout = LAYOUTS.get(info.architecture)
    told = info.config.get("head_dim") or (layout.head_dim if layout else None)
    return int(told or info.hidden_size // int(info.config.get("num_attention_heads") or 1))


def _check_kv_cache(info: CheckpointInfo, step: QuantizeKvCache, pointer: str) -> None:
    if step.modules is not None:
        raise not_applicable(
            "keys and values are not modules",
            hint="choose keys or values by k_bits and v_bits, and layers by `layers`",
            pointer=f"{pointer}/modules",
        )
    if info.config.get("kv_lora_rank") is not None:
        raise not_applicable(
            f"{info.architecture} caches a latent vector instead of keys and values",
            hint="use a model that caches keys and values per head",
            pointer=pointer,
        )
    check_layers(info, step, pointer)
    known = section_in(info.config)
    if known is not None and (known.simulated_kv if step.dtype else known.kv_dtype):
        raise not_applicable(
            "an earlier step quantizes keys and values in another way",
            hint="give either a dtype of the engine, or simulated bits",
            pointer=pointer,
        )
    size = head_size(info)
    if step.dtype is not None:
        _check_dtype(info, step, size, pointer)
    elif step.group_size is not None and size % step.group_size:
        dividing = ", ".join(str(one) for one in range(1, size + 1) if size % one == 0)
        raise HemostatError(
            ErrorCode.GROUP_SIZE_MISMATCH,
            f"group_size {step.group_size} does not divide the {size} values of a head",
            hint=f"{dividing} do; null: one group per head and token",
            pointer=f"{pointer}/group_size",
        )


def _check_dtype(info: CheckpointInfo, step: QuantizeKvCache, size: int, pointer: str) -> None:
    if step.layers is not None:
        raise not_applicable(
            "a dtype applies to the cache of all layers",
            hint="leave layers out, or simulate with k_bits and v_bits",
            pointer=f"{pointer}/layers",
        )
    scheme: Any = (info.quantization or {}).get("kv_cache_scheme")
    if scheme is not None:
        raise not_applicable(
            "the checkpoint itself sets the dtype of keys and values",
            hint="leave the step out",
            pointer=f"{pointer}/dtype",
        )
    why = ""
    if is_cpu_build():
        if size % _CPU_HEAD:
            why = f"vLLM's CPU build stores heads of a multiple of {_CPU_HEAD} values so, and this model's have {size}"
        elif not has_avx512():
            why = "vLLM's CPU build stores keys and values so on x86 processors with AVX-512 or AMX alone"
    if why:
        raise HemostatError(
            ErrorCode.PACKING_UNSUPPORTED,
            f"{step.dtype}: {why}",
            hint="simulate it: k_bits and v_bits 8",
            pointer=f"{pointer}/dtype",
        )
