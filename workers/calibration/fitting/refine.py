"""Corrections after each block, refined together through the blocks behind them.

The closed form (`workers.calibration.fitting.blocks`) lets each block's stream follow the reference's. What the KL at
the end depends on is only a part of that stream. From the closed form on, all maps and biases are trained together on
this KL (`workers.mitigation.training`). They are kept if it fell on the documents that are not trained on.

Names: N windows, L tokens of a window, D hidden size, R rank.
"""

from typing import Any, Final

import torch
from torch import nn

from workers.calibration.fitting.fit_text import FitText
from workers.calibrators.blocks import BlockCorrection, Blocks, corrected
from workers.mitigation.divergence import Divergence
from workers.mitigation.optimizer import Rate
from workers.mitigation.split import Split
from workers.mitigation.training import Training
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Log, Progress

RATE: Final = Rate(1e-4)


class _Trained(nn.Module):
    """A correction on what leaves a layer: map and bias are trained, the limit stays."""

    def __init__(self, given: BlockCorrection) -> None:
        super().__init__()
        self.down_RD, self.up_DR, self.bias_D = (
            nn.Parameter(one.clone()) for one in (given.down_RD, given.up_DR, given.bias_D)
        )
        self._limit = given.limit

    def hook(self, _: nn.Module, __: Any, leaving: Any) -> Any:
        """Corrects what leaves the layer."""
        h_NLD = leaving[0] if isinstance(leaving, tuple) else leaving
        found_NLD = self.corrected(h_NLD.flatten(0, 1)).view_as(h_NLD)
        return (found_NLD, *leaving[1:]) if isinstance(leaving, tuple) else found_NLD

    def corrected(self, h_TD: torch.Tensor) -> torch.Tensor:
        """The corrected rows."""
        return corrected(h_TD, self.down_RD, self.up_DR.T, self.bias_D, self._limit)

    def correction(self) -> BlockCorrection:
        """As it is now."""
        down_RD, up_DR, bias_D = (one.detach().contiguous() for one in (self.down_RD, self.up_DR, self.bias_D))
        return BlockCorrection(down_RD, up_DR, bias_D, self._limit)


def refined(
    candidate: Skeleton,
    blocks: Blocks,
    text: FitText,
    states: Activations,
    divergence: Divergence,
    *,
    steps: int,
    progress: Progress,
    log: Log,
    check_cancelled: CheckCancelled,
) -> Blocks:
    """`blocks` after so many steps, or as they were if these do not help; `states`: what leaves the reference's final
    norm at the windows of `text` that count. Everything is on the candidate's device.

    Raises what `FitText.parts` and `check_cancelled` raise.
    """
    counted_N = text.counted()
    fitted_N, held_N = (part_N[counted_N].nonzero().flatten().tolist() for part_N in text.parts())
    trained = {block: _Trained(one) for block, one in blocks.items()}
    for block, one in trained.items():
        candidate.layers[block].register_forward_hook(one.hook)
    training = Training(
        candidate,
        text.tokens_NL[counted_N],
        states,
        divergence,
        split=Split(tuple(fitted_N), tuple(held_N)),
        counted_NL=text.weight_NL[counted_N] > 0,
        phase="refine",
        progress=progress,
        check_cancelled=check_cancelled,
    )
    before = training.measure()
    parameters = [parameter for one in trained.values() for parameter in one.parameters()]
    training.descend(parameters, steps, seed=0, rate=RATE)
    after = training.measure()
    helped = after < before  # not if it is not finite
    log(
        f"refined block corrections are {'kept' if helped else 'dropped'}: KL {before:.4g} → {after:.4g} nats per "
        "token on documents that are not trained on"
    )
    if not helped:
        return blocks
    corrections = {block: one.correction() for block, one in trained.items()}
    return Blocks(corrections, layers=blocks.layers, hidden_size=blocks.hidden_size)
