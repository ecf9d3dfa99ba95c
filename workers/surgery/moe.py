"""Mixtures of experts routed otherwise.

A router's logits are W x; a token goes to the experts of the largest ones, weighted by their softmax. A *temperature*
divides the logits (the order, and so the choice of experts, stays; their weights change). *Noise* and *few bits* change
W itself, and with it the choice near the boundary. All of it is of our own making: probes of how robust routing is.

Shapes: E experts, D hidden size.
"""

import torch

from app.recipes.moe import MoeRouter, MoeTopk
from workers.surgery import quantize_rtn
from workers.surgery.quantize_grid import bits_per_weight
from workers.surgery.step_run import StepRun
from workers.surgery.width import width_of


class TopK:
    """`moe.topk`."""

    version = 1

    def __init__(self, step: MoeTopk) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Writes the configuration."""
        context.figures["experts a token before"] = float(context.source.config.get("num_experts_per_tok") or 0)
        context.config["num_experts_per_tok"] = self._step.experts
        context.figures["experts a token"] = float(self._step.experts)


class Router:
    """`moe.router`."""

    version = 1

    def __init__(self, step: MoeRouter) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Every router of the layers named."""
        generator = torch.Generator().manual_seed(self._step.seed)
        for weight in context.weights:
            router_ED = context.read(weight.name)
            context.put(weight.name, self._changed(router_ED, generator), bits=self._bits(router_ED))

    def _changed(self, router_ED: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        step = self._step
        if step.temperature is not None:
            return (router_ED.to(torch.float32) / step.temperature).to(router_ED.dtype)
        if step.noise is not None:
            wide_ED = router_ED.to(torch.float32)
            noise_ED = torch.randn(wide_ED.shape, generator=generator, device="cpu").to(wide_ED.device)
            noise_ED = noise_ED * step.noise * wide_ED.std()
            return (wide_ED + noise_ED).to(router_ED.dtype)
        assert step.bits is not None  # noqa: S101 - the contract gives one of the three
        return quantize_rtn.quantize(router_ED, bits=step.bits, group_size=None, symmetric=False)

    def _bits(self, router_ED: torch.Tensor) -> float | None:
        if self._step.noise is not None:
            return width_of(router_ED)
        bits = self._step.bits
        if bits is None:
            return None
        return bits_per_weight(router_ED.shape[1], bits=bits, group_size=None, symmetric=False)
