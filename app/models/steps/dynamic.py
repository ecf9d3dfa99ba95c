"""Dynamic quantization scaling: a dense model, group sizes that divide, and packed only what vLLM has a kernel for."""

from collections.abc import Sequence
from dataclasses import replace

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SimulatedActivations
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_step
from app.models.simulation import with_activations
from app.models.steps.blockwise import check_blocks
from app.models.steps.quantize import PackedForm, check_fused, check_packed, has_kernel
from app.recipes.base import Step
from app.recipes.quantize import MIXED_BITS, QuantizeDynamic


def widths(step: QuantizeDynamic) -> tuple[int, ...]:
    """The widths that the step may give a module; packed, those of them that vLLM has a kernel for here."""
    if not step.mixed:
        return (int(step.bits),)
    if step.form == "simulated":
        return MIXED_BITS
    return tuple(bits for bits in MIXED_BITS if has_kernel(_form(step, bits)))


def chooses(step: QuantizeDynamic) -> bool:
    """Whether widths are left to choose: where the mean is the least that a module may have, every module has it."""
    allowed = widths(step)
    return step.mixed and bool(allowed) and step.bits > min(allowed)


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the step addresses.

    Raises what `check_step` and `check_blocks` raise, RECIPE_NOT_APPLICABLE for a mean width that no mixture has, and
    PACKING_UNSUPPORTED for a packed form that vLLM does not serve here.
    """
    assert isinstance(step, QuantizeDynamic)  # noqa: S101 - the one type that is routed here
    chosen = check_step(info, step, pointer=pointer)
    check_blocks(info, chosen, pointer=pointer)
    allowed = widths(step)
    if step.form == "packed":
        if step.mixed and not allowed:
            raise _refused(ErrorCode.PACKING_UNSUPPORTED, "4-bit activations have no kernel", f"{pointer}/form")
        for bits in allowed:
            check_packed(info, step, _form(step, bits), chosen, pointer)
        if step.activation_bits == 8 and (not step.symmetric or (8 in allowed and step.group_size is not None)):
            field = "group_size" if step.symmetric else "symmetric"
            raise HemostatError(
                ErrorCode.PACKING_UNSUPPORTED,
                "vLLM's kernels for 8-bit activations need symmetric weights; 8-bit weights need one scale per channel",
                hint='set symmetric to true and group_size to null, or form to "simulated"',
                pointer=f"{pointer}/{field}",
            )
    if step.activation_bits is not None:
        check_fused(chosen, info, ErrorCode.RECIPE_NOT_APPLICABLE, pointer)
    if step.mixed and step.bits < min(allowed):
        raise _refused(
            ErrorCode.PACKING_UNSUPPORTED if step.form == "packed" else ErrorCode.RECIPE_NOT_APPLICABLE,
            f"a module has {', '.join(map(str, allowed))} bits, and none of these is as low as {step.bits:g}",
            f"{pointer}/bits",
        )
    if step.mixed and step.bits > max(allowed):
        raise _refused(
            ErrorCode.PACKING_UNSUPPORTED,
            f"a module that is packed has at most {max(allowed)} bits here, and {step.bits:g} are asked for on average",
            f"{pointer}/bits",
        )
    return chosen


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """The checkpoint, packed; or with the section of what is simulated at run time."""
    assert isinstance(step, QuantizeDynamic)  # noqa: S101 - the one type that is routed here
    if step.form == "packed":
        scheme = _form(step, min(widths(step))).scheme
        return replace(info, quantization={"quant_method": "compressed-tensors"}, scheme=scheme)
    if step.activation_bits is None:
        return info
    return replace(info, config=with_activations(info.config, activations_entry(step, check_step(info, step))))


def activations_entry(step: QuantizeDynamic, weights: Sequence[Weight]) -> SimulatedActivations:
    """What the step leaves in config.json."""
    if step.activation_bits is None:
        raise ValueError("the step leaves activations as they are")
    return SimulatedActivations(
        bits=step.activation_bits, dynamic=True, symmetric=True, modules=tuple(weight.module for weight in weights)
    )


def _form(step: QuantizeDynamic, bits: int) -> PackedForm:
    return PackedForm(bits, step.group_size, step.symmetric, activation_bits=step.activation_bits)


def _refused(code: ErrorCode, detail: str, pointer: str) -> HemostatError:
    return HemostatError(code, detail, hint='give another width, or form "simulated"', pointer=pointer)
