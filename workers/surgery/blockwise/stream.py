"""The hidden states of a model at one border between its blocks, going forward.

Names: N windows, L tokens of a window, D hidden size.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations, Walk, check_states
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress


class Stream:
    """`states` is what enters block `layer`. `scratch`: a folder for the mapped file, which `phase` names."""

    def __init__(
        self,
        skeleton: Skeleton,
        tokens_NL: torch.Tensor,
        scratch: Path,
        *,
        phase: str = "reference",
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self.skeleton = skeleton
        self._phase, self._progress, self._check_cancelled = phase, progress, check_cancelled
        self._walk = Walk(skeleton, tokens_NL, scratch, phase=phase, check_cancelled=check_cancelled)
        self.states: Activations = self._walk.entering
        self.layer = 0

    def advance(self, layer: int) -> None:
        """To what enters block `layer`; their number: to what leaves the last.

        Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` if a block's output is not finite.
        """
        while self.layer < layer:
            self._progress(self._phase, self.layer, len(self.skeleton.layers))
            self.skeleton.block(self.layer)
            self.change(self._block)
            self.skeleton.release(self.layer)
            self.layer += 1

    @torch.no_grad()
    def change(self, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Every batch (n, L, D) becomes what `make` makes of it."""
        for start, end in self._walk.batches():
            self._check_cancelled()
            self.states.write(start, make(self.states.read(start, end)))

    def normed(self) -> Activations:
        """What leaves the final norm: the end of the way."""
        self.advance(len(self.skeleton.layers))
        self.change(self.skeleton.norm())
        return self.states

    def _block(self, entering_NLD: torch.Tensor) -> torch.Tensor:
        leaving_NLD = self._walk.call(self.layer, entering_NLD)
        check_states(leaving_NLD, self.layer)
        return leaving_NLD
