"""What is trained of pruned layers: the kept weights alone.

The target is what the reference's block gives on the reference's own states, so that a block also takes back what those
before it lost.

Training only the kept weights of a fixed mask replaces the ADMM update of Boža 2024 (arXiv 2401.02938).
"""

from typing import Any

import torch
from torch import nn

from workers.mitigation.reconstruction import at, schedule

# Steps relative to the root mean square of a matrix's kept weights.
RATE = 0.01


class KeptWeights:
    """Float32 masters of pruned linear layers, their masks, and Adam on what is kept. Masks never change.

    The layers' own weights are what is computed with, in their dtype; `step` takes their gradients.
    """

    def __init__(self, linears: dict[str, nn.Linear], *, rate: float = RATE) -> None:
        self.linears = linears
        self.masters = {name: one.weight.detach().to(torch.float32).clone() for name, one in linears.items()}
        self.masks = {name: one != 0 for name, one in self.masters.items()}
        groups: list[dict[str, Any]] = []
        for name, master in self.masters.items():
            kept = int(self.masks[name].sum())
            size = float(master.norm()) / max(1, kept) ** 0.5
            groups.append({"params": [master], "lr": rate * size, "base": rate * size})
            linears[name].weight.requires_grad_(True)
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95), foreach=False)

    @torch.no_grad()
    def step(self, part: float) -> None:
        """One Adam step at a part of the way, from the gradients in the layers."""
        at(self.optimizer, schedule(part))
        for name, linear in self.linears.items():
            master, gradient = self.masters[name], linear.weight.grad
            if gradient is not None:
                master.grad = gradient.to(torch.float32) * self.masks[name]
            linear.weight.grad = None
        self.optimizer.step()
        self.write()

    @torch.no_grad()
    def write(self) -> None:
        """Puts the masters into the layers."""
        for name, linear in self.linears.items():
            linear.weight.copy_(self.masters[name])

    def close(self) -> None:
        """The layers are constants again."""
        for linear in self.linears.values():
            linear.weight.grad = None
            linear.weight.requires_grad_(False)
