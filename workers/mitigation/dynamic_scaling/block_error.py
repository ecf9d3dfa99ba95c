"""What changes of some layers cost where their block's output joins the next block.

An error e of a token counts w eᵀSe, S = E[δ δᵀ] at the block's output, with δ the gradient of the divergence
there. The block is fitted in the same form afterwards (`workers.mitigation.reconstruction.metric_root`). w is what the
token counts (`workers.mitigation.importance`). The block runs in float32: what eight bits cost is less than what
rounding hidden states to 16 bits does.

Memory: one more block in float32, and its outputs on the text that is looked at.

Shapes: N windows, L tokens of a window, D hidden size, O and I output and input dimension of a layer.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from workers.mitigation.dynamic_scaling.activations import round_tokens
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import CheckCancelled, never_cancelled


class BlockErrors:
    """Opens one block after the other. `skeleton`: of the source, in float32; `tokens_NL`: the text that is looked at.

    Raises what `Skeleton` raises.
    """

    def __init__(
        self, skeleton: Skeleton, tokens_NL: torch.Tensor, check_cancelled: CheckCancelled = never_cancelled
    ) -> None:
        self._skeleton, self._check = skeleton, check_cancelled
        self._calls = skeleton.calls(tokens_NL)[1]
        skeleton.release_embedding()

    @contextmanager
    def block(
        self, index: int, entering_NLD: torch.Tensor, root_DD: torch.Tensor, weight_NL: torch.Tensor
    ) -> Iterator["BlockError"]:
        """For the length of a `with`, that of one block. `root_DD`: R with R Rᵀ = S; `weight_NL`: w."""
        layer = self._skeleton.block(index)
        kwargs, given_NLD = self._calls[index], entering_NLD.to(self._skeleton.dtype)

        @torch.no_grad()
        def call() -> torch.Tensor:
            self._check()
            found: Any = layer(given_NLD, **kwargs)
            leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
            return leaving_NLD

        try:
            yield BlockError(layer, f"model.layers.{index}.", call, root_DD, weight_NL)
        finally:
            self._skeleton.release(index)


class BlockError:
    """Of one block: `call` runs `layer`, whose tensors are named with `prefix` before their path, and is to give what
    it gives now."""

    def __init__(
        self,
        layer: nn.Module,
        prefix: str,
        call: Callable[[], torch.Tensor],
        root_DD: torch.Tensor,
        weight_NL: torch.Tensor,
    ) -> None:
        self._layer, self._prefix, self._call = layer, prefix, call
        self._root_DD, self._weight_NL = root_DD, weight_NL
        self._wanted_NLD = call()

    def of(self, weights: Mapping[str, torch.Tensor], divide_I: torch.Tensor, activation_bits: int | None) -> float:
        """Mean over tokens of w eᵀSe if these layers (by tensor name) have these weights (O, I) ; their inputs are
        divided by `divide_I`. Then they are rounded, with a scale per token. Nothing is rounded where `activation_bits`
        is None."""

        def given(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            x_NLI = args[0] / divide_I
            return (x_NLI if activation_bits is None else round_tokens(x_NLI, activation_bits), *args[1:])

        with ExitStack() as stack:
            for name, weight_OI in weights.items():
                linear = self._layer.get_submodule(name.removeprefix(self._prefix).removesuffix(".weight"))
                parameter: Any = linear.weight
                stack.callback(setattr, parameter, "data", parameter.data)
                parameter.data = weight_OI.to(parameter.dtype)
                stack.callback(linear.register_forward_pre_hook(given).remove)
            error_NLD = self._call() - self._wanted_NLD
        return float(((error_NLD @ self._root_DD).square().sum(-1) * self._weight_NL).mean())
