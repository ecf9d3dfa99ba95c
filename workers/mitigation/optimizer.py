"""Adam on thin factors, its steps of one size for all or in proportion to each factor.

Adam's steps are as long for a factor of small numbers as for one of large numbers, and a closed form has both. Those of
attention and of the first layers differ by orders of magnitude from others. Where factors have their size already,
steps in proportion to it move all alike, as with LAMB's trust ratio (arXiv
1904.00962). There the size is that of every step, here the one at the beginning. What has nothing in it stays as it is:
a step has no size there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Rate:
    """Length of a step where the schedule is at its highest; with `relative`, as a share of the root mean square of
    each factor."""

    size: float
    relative: bool = False


def adam_of(factors: Iterable[torch.nn.Parameter], rate: Rate, betas: tuple[float, float]) -> torch.optim.Adam:
    """A parameter group for each factor, whose `base` is the full length of its steps."""
    groups: list[dict[str, Any]] = []
    for factor in factors:
        size = rate.size * (float(factor.detach().square().mean().sqrt()) if rate.relative else 1.0)
        groups.append({"params": [factor], "lr": size, "base": size})
    return torch.optim.Adam(groups, betas=betas, foreach=False)
