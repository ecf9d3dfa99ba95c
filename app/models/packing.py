"""How a compressed-tensors checkpoint is packed, from its `quantization_config`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from app.contracts.errors import ErrorCode, HemostatError
from app.models.patterns import matches
from app.models.processor import has_avx512, is_cpu_build

# Linear layers that vLLM runs as one product, with one scheme.
# Formats of compressed-tensors whose weights are unpacked here. Those of 4-bit floats (NVFP4, MXFP4) are not.
UNPACKED: Final = frozenset({"int-quantized", "float-quantized", "naive-quantized", "pack-quantized"})
FUSED: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True)
class Packing:
    """One group of modules: weights of `bits`, of kind int or float; activations of `activation_bits` or untouched."""

    bits: int
    kind: str
    activation_bits: int | None
    group_size: int | None
    symmetric: bool

    @property
    def scheme(self) -> str:
        """w8a8, w4a16, …; fp8, fp4 where both sides are floats of that width."""
        if self.kind == "float":
            return (
                f"fp{self.bits}" if self.activation_bits == self.bits else f"fp{self.bits}a{self.activation_bits or 16}"
            )
        return f"w{self.bits}a{self.activation_bits or 16}"

    def packed_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the int32 tensor that a weight [out, in] is packed into along its input dimension."""
        return (*shape[:-1], ceil(shape[-1] * self.bits / 32))


def packings(quantization: dict[str, Any]) -> tuple[Packing, ...]:
    """The groups of a `quantization_config`.

    Raises `HemostatError(CHECKPOINT_UNSUPPORTED)` for any method but compressed-tensors, and for what goes beyond
    quantized weights and activations (rotations, sparse formats); `CHECKPOINT_CORRUPT` for a group that says nothing.
    """
    method = quantization.get("quant_method")
    if method != "compressed-tensors":
        raise _unsupported(f"its weights are packed by {method!r}")
    if (quantization.get("transform_config") or {}).get("config_groups"):
        raise _unsupported("it applies rotations (transform_config)")
    if (quantization.get("sparsity_config") or {}).get("format", "dense") != "dense":
        raise _unsupported("it stores sparse weights (sparsity_config)")
    groups = quantization.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise _corrupt("it has no config_groups")
    found = tuple(_packing(name, group) for name, group in sorted(groups.items()))
    for targets in (quantization.get("ignore"), *(group.get("targets") for group in groups.values())):
        Targets(targets)
    return found


def scheme_of(groups: tuple[Packing, ...]) -> str:
    """The scheme of a whole checkpoint; several are joined by "+"."""
    return "+".join(sorted({group.scheme for group in groups}))


def check_served(quantization: dict[str, Any] | None, name: str, *, pointer: str = "") -> None:
    """Raises CHECKPOINT_UNSUPPORTED if the vLLM that is installed here has no kernel on this processor for a packed
    checkpoint, called `name`."""
    if not quantization or not is_cpu_build():
        return
    four = [group for group in packings(quantization) if group.bits == 4]
    if any(group.kind == "float" for group in four):
        why, where = "weights of 4-bit floats (NVFP4, MXFP4), for which vLLM's CPU build has no kernel", "a GPU"
    elif any(group.activation_bits is None for group in four) and not has_avx512():
        why = "4-bit weights, whose kernel in vLLM's CPU build takes AVX-512, which this processor has not"
        where = "a GPU or a processor with AVX-512"
    else:
        return
    raise HemostatError(
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        f"{name} has {why}",
        hint=f'run it on {where}; a recipe that quantizes the plain weights (form "simulated") runs here',
        pointer=pointer,
    )


def kept_packed(quantization: Mapping[str, Any] | None) -> str:
    """Formats of a `quantization_config` whose weights cannot be unpacked here, with commas between; mostly none."""
    given = quantization or {}
    formats = {str(group.get("format") or given.get("format")) for group in (given.get("config_groups") or {}).values()}
    return ", ".join(sorted(formats - UNPACKED))


def check_one_scheme(quantization: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """Raises CHECKPOINT_UNSUPPORTED if layers that vLLM runs as one product are packed in different ways. vLLM would
    take the first one's scheme for all of them without a word. `quantization` is one that
    `packings` takes, `tensors` are the names of the checkpoint's."""
    ignored = Targets(quantization.get("ignore"))
    groups = quantization["config_groups"]
    targets = {name: Targets(groups[name].get("targets")) for name in sorted(groups)}
    parents: dict[str, dict[str, str]] = {}
    for tensor in tensors:
        module, _, part = tensor.rpartition(".")
        parent, _, last = module.rpartition(".")
        if part in {"weight", "weight_packed"}:
            parents.setdefault(parent, {})[last] = module
    for parent, modules in parents.items():
        for together in FUSED:
            there = [one for one in together if one in modules]
            found = ["" if ignored.name(modules[one]) else _scheme(groups, targets, modules[one]) for one in there]
            if len(set(found)) > 1:
                told = ", ".join(f"{one} {scheme or 'plain'}" for one, scheme in zip(there, found, strict=True))
                raise HemostatError(
                    ErrorCode.CHECKPOINT_UNSUPPORTED,
                    f"vLLM runs {', '.join(there)} of {parent} as one layer, but quantization_config gives them "
                    f"different schemes: {told}",
                    hint="quantize the model again with the same scheme for all of them",
                )


def has_fixed_grids(quantization: Mapping[str, Any] | None) -> bool:
    """Whether activations are quantized on grids that were fixed on text, of any group of a `quantization_config`."""
    groups = (quantization or {}).get("config_groups")
    inputs = [group.get("input_activations") for group in (groups or {}).values() if isinstance(group, dict)]
    return any(isinstance(one, dict) and not one.get("dynamic", False) for one in inputs)


def _scheme(groups: Mapping[str, Any], targets: "Mapping[str, Targets]", module: str) -> str:
    """The scheme of a module in words, all that decides its arithmetic; empty if it is plain."""
    by_name = (name for name, one in targets.items() if one.name(module, by_class=False))
    by_class = (name for name, one in targets.items() if one.name(module))
    name = next(by_name, None) or next(by_class, None)
    if name is None:
        return ""
    group = groups[name]
    packing = _packing(name, group)
    words = [packing.scheme, "symmetric" if packing.symmetric else "asymmetric"]
    words.append(f"groups of {packing.group_size}" if packing.group_size else str(group["weights"].get("strategy", "")))
    inputs = group.get("input_activations")
    if isinstance(inputs, dict):
        words.append("dynamic" if inputs.get("dynamic") else "static")
    return " ".join(filter(None, words))


class Targets:
    """A list of targets: names of modules, patterns behind `re:`, and classes, of which all here are Linear.

    Raises CHECKPOINT_UNSUPPORTED for a pattern that cannot be matched in linear time.
    """

    def __init__(self, targets: Any) -> None:
        self._exact = {str(target) for target in targets or ()}
        self._patterns = [one.removeprefix("re:") for one in sorted(self._exact) if one.startswith("re:")]
        for pattern in self._patterns:
            try:
                matches(pattern, "")
            except ValueError as error:
                raise _unsupported(f"quantization_config has a pattern that cannot be matched: {error}") from error

    def name(self, module: str, *, by_class: bool = True) -> bool:
        """Whether they name the module, or its class."""
        named = module in self._exact or (by_class and "Linear" in self._exact)
        return named or any(matches(pattern, module) for pattern in self._patterns)


def _packing(name: str, group: Any) -> Packing:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict) or type(weights.get("num_bits")) is not int:
        raise _corrupt(f"group {name} does not say how its weights are quantized")
    activations = group.get("input_activations")
    return Packing(
        bits=weights["num_bits"],
        kind=str(weights.get("type", "int")),
        activation_bits=activations.get("num_bits") if isinstance(activations, dict) else None,
        group_size=weights.get("group_size"),
        symmetric=bool(weights.get("symmetric", True)),
    )


def _unsupported(what: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        f"the checkpoint cannot be used: {what}",
        hint="supported are plain safetensors, and compressed-tensors checkpoints such as W8A8 and W4A16",
    )


def _corrupt(what: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_CORRUPT, f"config.json: quantization_config: {what}", hint="fetch the file again"
    )
