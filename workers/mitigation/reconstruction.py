"""Parts of a block are trained for a few hundred steps so that the block gives what the reference's block gives.

The block is given what the changed blocks before it give; what it is to give, the caller says. The error e of an output
counts eᵀSe, S = E[δ δᵀ] at that place, with δ the gradient of the divergence. Directions on
which no prediction hangs do not lead.

Where it is from: reconstruction of a block's output by gradient steps is BRECQ's (Li et al. 2021, arXiv 2102.05426)
and, for pruning, Wanda++'s regional optimisation (arXiv 2503.04992). The weighting by the whole S is ours.

Shapes: N windows, L tokens of a window, D hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from math import cos, pi
from typing import Protocol

import torch

from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import never_cancelled

# The least share of a rate, at the end.
LAST = 0.1
WARM = 0.1
# How much of S is replaced by a multiple of the identity.
PLAIN = 0.2

# gives (hidden states in, what is wanted out) of windows chosen by number
Fetch = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def pairs_of(entering: Activations, wanted: Activations) -> Fetch:
    """Reads what enters and what is wanted."""

    def fetch(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        windows = chosen.tolist()
        entering_NLD = torch.cat([entering.read(one, one + 1) for one in windows])
        return entering_NLD, torch.cat([wanted.read(one, one + 1) for one in windows])

    return fetch


def metric_root(moment_DD: torch.Tensor, plain: float = PLAIN) -> torch.Tensor:
    """(D, D) R with R Rᵀ = (1 − plain) · S / mean diagonal + plain · 1; S positive semidefinite, float32."""
    mean = moment_DD.diagonal().mean().clamp(min=1e-30)
    metric_DD = (1 - plain) * moment_DD / mean + plain * torch.eye(len(moment_DD))
    root_DD: torch.Tensor = torch.linalg.cholesky(metric_DD)
    return root_DD


def schedule(part: float) -> float:
    """The share of the rate at a part (0 to 1) of the way: a short rise, then a cosine down to `LAST`."""
    return min(1.0, (part + 1e-3) / WARM) * (LAST + (1 - LAST) * (1 + cos(pi * min(1.0, part))) / 2)


class Trained(Protocol):
    """What `reconstruct` trains: parts of the block that `call` runs, and their optimizer."""

    def step(self, part: float) -> None:
        """One step at a part (0 to 1) of the way, from the gradients that are there."""

    def close(self) -> None:
        """They are constants again."""


def at(optimizer: torch.optim.Optimizer, share: float) -> None:
    """The next step of every parameter group has `share` of its full length, the group's `base`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * share


class Scheduled:
    """What `reconstruct` trains where the optimizer has the numbers themselves; its groups have a `base` each."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, part: float) -> None:
        """One step at a part of the way."""
        at(self.optimizer, schedule(part))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        """They are constants again."""
        for group in self.optimizer.param_groups:
            for one in group["params"]:
                one.requires_grad_(False)


def added(entering_NLD: torch.Tensor, wanted_NLD: torch.Tensor) -> torch.Tensor:
    """What a block adds to the states that enter it."""
    return wanted_NLD.to(torch.float32) - entering_NLD.to(torch.float32)


def orders(windows: int, batch: int, epochs: int, seed: int) -> Iterator[torch.Tensor]:
    """Numbers of windows of each step: every epoch all of them once, in an order that the seed decides."""
    draws = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(windows, generator=draws, device="cpu")
        yield from (order[start : start + batch] for start in range(0, windows, batch))


def reconstruct(
    call: Callable[[torch.Tensor], torch.Tensor],
    trained: Trained,
    fetch: Fetch,
    root_DD: torch.Tensor,
    plan: Sequence[torch.Tensor],
    *,
    size_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = added,
    check_cancelled: Callable[[], None] = never_cancelled,
) -> list[float]:
    """Trains `trained` and closes it; the weighted error of each step, relative to what the block adds.

    `call(hidden_NLD)` runs the block; `plan` are the windows of each step (`orders`); `size_of` says what the error is
    relative to, given what enters and what is wanted.
    """
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
        trained.step(done / len(plan))
    trained.close()
    return losses
