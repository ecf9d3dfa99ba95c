"""What stays of a block is trained for a few hundred steps so that the block gives what the reference's block gives.

The block is given what the pruned blocks before it give, and is to give what the reference's block gives on the
reference's own states: it also takes back what the blocks before it lost. The error e of an output counts eᵀSe, S = E[δ
δᵀ] of the reference at that place, so that directions on which no prediction hangs do not lead. Masks never change.

Where it is from: reconstruction of a block's output by gradient steps is BRECQ's (Li et al. 2021, arXiv 2102.05426)
and, for pruning, Wanda++'s regional optimisation (arXiv 2503.04992); training only the kept weights of a fixed mask
replaces the ADMM update of Boža 2024 (arXiv 2401.02938). The weighting by the whole S and the target from the
reference's own stream are put together here.

Shapes: N windows, L tokens of a window, D hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from math import cos, pi
from typing import Any

import torch
from torch import nn

from workers.surgery.callbacks import never_cancelled

# Steps relative to the root mean square of a matrix's kept weights, and their least share at the end.
RATE, LAST = 0.01, 0.1
WARM = 0.1
# How much of S is replaced by a multiple of the identity.
PLAIN = 0.2

# gives (hidden states in, what is wanted out) of windows chosen by number
Fetch = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def metric_root(moment_DD: torch.Tensor, plain: float = PLAIN) -> torch.Tensor:
    """(D, D) R with R Rᵀ = (1 − plain) · S / mean diagonal + plain · 1; S positive semidefinite, float32."""
    mean = moment_DD.diagonal().mean().clamp(min=1e-30)
    metric_DD = (1 - plain) * moment_DD / mean + plain * torch.eye(len(moment_DD))
    root_DD: torch.Tensor = torch.linalg.cholesky(metric_DD)
    return root_DD


def schedule(part: float) -> float:
    """The share of the rate at a part (0 to 1) of the way: a short rise, then a cosine down to `LAST`."""
    return min(1.0, (part + 1e-3) / WARM) * (LAST + (1 - LAST) * (1 + cos(pi * min(1.0, part))) / 2)


class KeptWeights:
    """Float32 masters of pruned linear layers, their masks, and Adam on what is kept.

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
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * schedule(part)
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


def added(entering_NLD: torch.Tensor, wanted_NLD: torch.Tensor) -> torch.Tensor:
    """What a block adds to the states that enter it."""
    return wanted_NLD.to(torch.float32) - entering_NLD.to(torch.float32)


def orders(windows: int, batch: int, epochs: int, seed: int) -> Iterator[torch.Tensor]:
    """Numbers of windows of each step: every epoch all of them once, in an order that the seed decides."""
    draws = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(windows, generator=draws)
        yield from (order[start : start + batch] for start in range(0, windows, batch))


def reconstruct(
    call: Callable[[torch.Tensor], torch.Tensor],
    linears: dict[str, nn.Linear],
    fetch: Fetch,
    root_DD: torch.Tensor,
    plan: Sequence[torch.Tensor],
    *,
    rate: float = RATE,
    size_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = added,
    check_cancelled: Callable[[], None] = never_cancelled,
) -> list[float]:
    """Trains the kept weights of `linears` in place; the weighted error of each step, relative to what the block adds.

    `call(hidden_NLD)` runs the block; `plan` are the windows of each step (`orders`); `size_of` says what the error is
    relative to, given what enters and what is wanted.
    """
    kept = KeptWeights(linears, rate=rate)
    losses = []
    for done, chosen in enumerate(plan):
        check_cancelled()
        entering_NLD, wanted_NLD = fetch(chosen)
        with torch.enable_grad():
            error_NLD = call(entering_NLD).to(torch.float32) - wanted_NLD.to(torch.float32)
            size = (size_of(entering_NLD, wanted_NLD).to(torch.float32) @ root_DD).square().mean()
            loss = (error_NLD @ root_DD).square().mean() / size.clamp(min=1e-30)
            loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        kept.step(done / len(plan))
    kept.close()
    return losses
