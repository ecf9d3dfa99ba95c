"""A weight is modified again, of what the product of thin matrices does not carry: round after round.

Q + U V is to be near W, Q what the steps before make of a weight. With U V given, Q is made of W − U V; with Q given, U
V is the closed form of W − Q. LoftQ (arXiv 2310.08659) alternates the two. Here the closed form is the one of the
layer's metric. Of all rounds and the modification that was there, the one that leaves the least by it is kept. A round
can be worse than the one before, since Q is not chosen by that metric.

To begin with the best product of W itself (LQ-LoRA, 2311.12023) leaves less in the end where W has few strong
directions, as those of attention have. The product is then ten times the error, and steps that are in proportion to it
are too long to be trained with.

Names: O outputs, I inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from workers.mitigation.repair.closed_form import Metric
from workers.surgery.callbacks import CheckCancelled, never_cancelled


@dataclass(frozen=True)
class Remainder:
    """`base_OI` is what the product goes on, None for the weight as it came; `error_OI` = W − base, float32. `left`
    what the best product of the rank leaves of it, nats per token."""

    base_OI: torch.Tensor | None
    error_OI: torch.Tensor
    left: float


def rounds(
    whole_OI: torch.Tensor,
    error_OI: torch.Tensor,
    metric: Metric,
    again: Callable[[torch.Tensor], torch.Tensor],
    *,
    rank: int,
    count: int,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Remainder:
    """The best modification of `count` rounds.

    `whole_OI` is W, `error_OI` = W − Ŵ of the modification that was there, `again` modifies a weight in the stored
    dtype."""
    taken, left = metric.divide(error_OI, most=rank)
    best = Remainder(None, error_OI, left)
    for _ in range(count):
        check_cancelled()
        base_OI = again(whole_OI - taken.product())
        rest_OI = whole_OI - base_OI.float()
        taken, left = metric.divide(rest_OI, most=rank)
        if left < best.left:
            best = Remainder(base_OI, rest_OI, left)
    return best
