"""Matrix products of 16-bit numbers on processors that have none.

Without AVX-512 (most laptops, older servers) oneDNN has no products of bf16 or float16. Then torch adds them up number
by number, several times slower than float32. With AVX-512 but without its BF16 (Skylake to Ice Lake) oneDNN has them,
made up of other instructions: 54 GFLOP/s where float32 has 238, on two such cores. In both cases the factors are taken
to float32, in which they are exact, multiplied, and the product is rounded once: what a bf16 product with float32
accumulation is. Elsewhere nothing here does anything.
"""

import platform
from functools import cache

import torch
from torch import nn
from torch.nn.functional import linear

_HALVES = (torch.bfloat16, torch.float16)


@cache
def lacking(dtype: torch.dtype) -> bool:
    """Whether this processor has no instructions for products of `dtype`, so that float32 is faster. Never so for
    float32."""
    if dtype not in _HALVES or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if dtype == torch.float16:
        return not torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return made_up(dtype) or not torch.ops.mkldnn._is_mkldnn_bf16_supported()


@cache
def made_up(dtype: torch.dtype) -> bool:
    """Whether oneDNN makes products of `dtype` up of other instructions here. They are slower than float32 for many
    rows, and twice as fast for a single row, which waits for the weights' bytes alone."""
    if dtype != torch.bfloat16 or platform.machine() not in ("x86_64", "AMD64"):
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_f") and not (has.get("avx512_bf16") or has.get("amx_bf16")))


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left (…, I) @ right (I, O) in the dtype of both; by way of float32 where this processor lacks it."""
    if left.device.type != "cpu" or not lacking(left.dtype):
        return left @ right
    return (left.float() @ right.float()).to(left.dtype)


def projected(x: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """x (…, I) through a matrix of its dtype, to (…, O), as `torch.nn.functional.linear` does; on a CPU by way of
    float32, backward too, where this processor lacks the product."""
    if x.device.type != "cpu" or not lacking(x.dtype):
        return linear(x, weight_OI)
    return linear(x.float(), weight_OI.float()).to(x.dtype)


class WidenedLinear(nn.Linear):
    """A linear layer whose product on a CPU is made in float32, and rounded once."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as the layer names it
        """(…, I) to (…, O)."""
        if input.device.type != "cpu":
            return linear(input, self.weight, self.bias)
        bias_O: torch.Tensor | None = self.bias
        wide_O = None if bias_O is None else bias_O.float()
        return linear(input.float(), self.weight.float(), wide_O).to(input.dtype)


def widen(model: nn.Module) -> None:
    """Lets the linear layers of a model multiply in float32 where they are of a dtype that this processor lacks.

    Weights stay as they are: one matrix at a time is taken to float32, for as long as its product takes.
    """
    for module in model.modules():
        if type(module) is nn.Linear and lacking(module.weight.dtype):
            module.__class__ = WidenedLinear
