"""Second moments of what several layers of one input are given, each with tokens counting as that layer says.

Shapes: T tokens of a batch, I input dimension.
"""

from collections.abc import Mapping

import torch

from workers.surgery.blockwise.gram import add_upper, mirror
from workers.surgery.blockwise.observers import SecondMoment


class MomentsOfLayers:
    """By layer: mean of w x xᵀ. `weights`: layer → what each token of the text counts (T, mean 1), in the text's order;
    layers with None share the plain moment."""

    def __init__(self, inputs: int, weights: Mapping[str, torch.Tensor | None]) -> None:
        self._weights = {name: weight_T for name, weight_T in weights.items() if weight_T is not None}
        self._sums = {name: torch.zeros(inputs, inputs) for name in self._weights}
        self._plain = SecondMoment(inputs) if len(self._weights) < len(weights) else None
        self._tokens = 0

    def see(self, x_TI: torch.Tensor) -> None:
        """One batch."""
        x_TI = x_TI.to(torch.float32)
        if self._plain is not None:
            self._plain.see(x_TI)
        for name, weight_T in self._weights.items():
            add_upper(self._sums[name], x_TI * weight_T[self._tokens : self._tokens + len(x_TI), None], x_TI)
        self._tokens += len(x_TI)

    def finite(self) -> bool:
        """Whether all that was summed up is a number."""
        return all(bool(torch.isfinite(sum_II).all()) for sum_II in self._sums.values()) and (
            self._plain is None or self._plain.finite()
        )

    def mean(self, name: str) -> torch.Tensor:
        """(I, I) of one layer."""
        if name in self._sums:
            return mirror(self._sums[name]) / max(1, self._tokens)
        assert self._plain is not None  # noqa: S101 - made where a layer has no weights
        return self._plain.mean()
