"""RMS norms in one loop, for engines on a CPU.

There vLLM 0.32 adds and norms by a chain of PyTorch operations, each of which reads and writes every activation: 8 % of
a forward pass of the demo model. The same chain, compiled, reads and writes once. Every rounding of the chain is kept;
only the order in which squares are added is another, which moves five elements in a million by a unit or two in the
last place. It is a provider of vLLM's own IR operation, which an engine asks for by `ir_op_priority`.
"""

import warnings
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

PROVIDER = "hemostat"
# The argument `ir_op_priority` of an engine. The norm without an addition, once a pass, is not worth compiling.
PRIORITY = {"fused_add_rms_norm": [PROVIDER]}


@cache
def register() -> None:
    """Makes the provider known to vLLM in this process."""
    import torch
    from vllm import ir

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        import torch._inductor.compile_fx  # warns of what it uses itself

    native = ir.ops.fused_add_rms_norm.impls["native"].impl_fn

    @lru_cache(maxsize=64)
    def compiled(width: int, dtypes: tuple["torch.dtype", ...], epsilon: float) -> "Callable[..., Any]":
        """The chain for one kind of norm; what belongs to one kind must not use up another's recompilations."""
        options: dict[str, Any] = {
            "dynamic": True,
            "fullgraph": True,
            "isolate_recompiles": True,
            "options": {"emulate_precision_casts": True},
        }
        chain: Callable[..., Any] = torch.compile(native, **options)
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
        weight: torch.Tensor | None,  # never None here, but the signature must be the operation's
        epsilon: float,
        variance_size: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        width = x.shape[-1]
        run = compiled(width, (x.dtype, x_residual.dtype), epsilon)
        out, total = run(x.view(-1, width), x_residual.view(-1, width), weight, epsilon)
        return out.view(x.shape), total.view(x.shape)

    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=plain)(fused_add_rms_norm)
