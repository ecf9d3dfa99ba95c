"""A recipe's steps as things that are done to one weight at a time: what such a class has, and those of `quantize.rtn`
and `prune.magnitude`. The others stand beside their formulas."""

from collections.abc import Callable, Iterator
from pkgutil import resolve_name
from typing import Any, Protocol

import torch

from app.recipes.base import Step
from app.recipes.prune import PruneMagnitude
from app.recipes.quantize import QuantizeRtn
from workers.surgery import quantize_rtn
from workers.surgery.prune_magnitude import GlobalThreshold
from workers.surgery.prune_masks import mask, quota_of
from workers.surgery.quantize_grid import bits_per_weight

Visit = Callable[[str, torch.Tensor], None]


class Runner(Protocol):
    """One step. `passes` yields what must see every addressed weight (as the steps before left it) before `apply` may
    be called; most steps need none. `apply` is pure: the same weight gives the same result."""

    def passes(self) -> Iterator[Visit]:
        """What must see the weights first, one pass after the other."""

    def apply(self, name: str, weight_OI: torch.Tensor) -> torch.Tensor:
        """The modified weight, in the dtype it came in."""

    def bits_per_weight(self, inputs: int) -> float | None:
        """Bits that a weight takes after this step where it sets them; `inputs` is the weight's input dimension."""

    def nominal_sparsity(self) -> float | None:
        """The share of zeros that the step asks for, where it asks for one."""


class RtnRunner:
    """`quantize.rtn`."""

    def __init__(self, step: QuantizeRtn) -> None:
        self._step = step

    def passes(self) -> Iterator[Visit]:
        """None needed."""
        return iter(())

    def apply(self, name: str, weight_OI: torch.Tensor) -> torch.Tensor:
        """Quantized and dequantized."""
        step = self._step
        return quantize_rtn.quantize(weight_OI, bits=step.bits, group_size=step.group_size, symmetric=step.symmetric)

    def bits_per_weight(self, inputs: int) -> float | None:
        """Code, and share of scale and zero point."""
        step = self._step
        return bits_per_weight(inputs, bits=step.bits, group_size=step.group_size, symmetric=step.symmetric)

    def nominal_sparsity(self) -> float | None:
        """It asks for none."""
        return None


class MagnitudeRunner:
    """`prune.magnitude`."""

    def __init__(self, step: PruneMagnitude) -> None:
        self._step = step
        self._threshold = (
            GlobalThreshold(step.sparsity) if step.sparsity is not None and step.scope == "global" else None
        )

    def passes(self) -> Iterator[Visit]:
        """What a share over all matrices together needs."""
        return self._threshold.passes() if self._threshold else iter(())

    def apply(self, name: str, weight_OI: torch.Tensor) -> torch.Tensor:
        """Pruned."""
        step = self._step
        if self._threshold is not None:
            return self._threshold.apply(name, weight_OI)
        quota = quota_of(step, *weight_OI.shape, scope=step.scope)
        return weight_OI.masked_fill(mask(weight_OI.to(torch.float32).abs(), quota), 0)

    def bits_per_weight(self, inputs: int) -> float | None:
        """Unchanged: see `TensorChange`."""
        return None

    def nominal_sparsity(self) -> float | None:
        """As asked, or 1 − N/M."""
        return self._step.share


def runner_of(step: Step) -> Any:
    """The class that does a step as it is; it is called with the step. Its module is imported here, no sooner."""
    return resolve_name(step.variant or step.runner)


def make_runner(step: Step) -> Runner:
    """The runner of a streamed step. Raises TypeError for any other."""
    if not step.streamed:
        raise TypeError(f"{step.type} is no streamed step")
    runner: Runner = resolve_name(step.runner)(step)
    return runner
