"""RMS norms in one loop, for engines on a CPU.

There vLLM 0.32 adds and norms by a chain of PyTorch operations, each of which reads and writes every activation: 8 % of
a forward pass of the demo model. The same chain, compiled, reads and writes once. Every rounding of the chain is kept.
Only the order in which squares are added differs, which moves five elements in a million by a unit or two in the last
place. It is a provider of vLLM's own IR operation, which an engine asks for by `ir_op_priority`.
"""

import warnings
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from workers.engine import vllm_names as vllm

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

PROVIDER = "hemostat"
# The argument `ir_op_priority` of an engine. The norm without an addition, once a pass, is not worth compiling.
PRIORITY = {"fused_add_rms_norm": [PROVIDER]}
# Inductor decides by the first rows that it sees whether a loop over rows is shared among threads, for good.
_MANY_ROWS = 2048


@cache
def register() -> None:
    """Makes the provider known to vLLM in this process."""
    import torch

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        import torch._inductor.compile_fx  # warns of what it uses itself

    operation = vllm.ir.ops.fused_add_rms_norm
    native = operation.impls["native"].impl_fn

    @lru_cache(maxsize=64)
    def compiled(width: int, dtypes: tuple["torch.dtype", ...], epsilon: float) -> "Callable[..., Any]":
        """The chain for one kind of norm (dtypes of x, residual and weight), compiled for many rows; what belongs to
        one kind must not use up another's recompilations."""
        options: dict[str, Any] = {
            "dynamic": True,
            "fullgraph": True,
            "isolate_recompiles": True,
            "options": {"emulate_precision_casts": True},
        }
        chain: Callable[..., Any] = torch.compile(native, **options)
        x, residual = (torch.zeros(_MANY_ROWS, width, dtype=dtype) for dtype in dtypes[:2])
        chain(x, residual, torch.zeros(width, dtype=dtypes[2]), epsilon)
        return chain

    def plain(
        x: torch.Tensor,
        x_residual: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> bool:
        return weight is not None and variance_size is None and x.is_contiguous() and x_residual.is_contiguous()

    def fused_add_rms_norm(
        x: torch.Tensor,
        x_residual: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if weight is None:  # the signature must be the operation's; `plain` lets none through
            raise ValueError("a norm without weights is left to the native chain")
        width = x.shape[-1]
        run = compiled(width, (x.dtype, x_residual.dtype, weight.dtype), epsilon)
        rows, residual = x.view(-1, width), x_residual.view(-1, width)
        if len(rows) == 1:  # alone, a row would be summed up by several threads, in another order than among others
            rows, residual = rows.repeat(2, 1), residual.repeat(2, 1)
            out, total = (found[:1] for found in run(rows, residual, weight, epsilon))
        else:
            out, total = run(rows, residual, weight, epsilon)
        return out.view(x.shape), total.view(x.shape)

    operation.register_impl(PROVIDER, supports_args=plain)(fused_add_rms_norm)
