"""What is free in a rounded block, as torch knows it: factors of scales, norms and biases, rounding, zero points.

w = scale · (1 + f) · (code − zero), where the code is round(code + rest + v) within the grid. Rest is what rounding
took away and v in steps of the grid, with straight-through gradients (SignRound, arXiv 2309.05516). A zero point that
moves takes the codes of its group along. Weights stay where they are, but for those that an end of
the grid cuts. Where the ends are is what a zero point says (as in LSQ+, arXiv 2004.09576). It is a code of the grid at
every moment, and scales are at every moment what 16 bits hold.

Shapes: O and I output and input dimension, G groups of a row.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from workers.mitigation.dynamic_scaling.rounding import Rounded, taken_away
from workers.surgery.quantize_grid import stored


class Learned:
    """A rounded weight whose scales can be learned; if `trained`, also its rounding and (asymmetric) its zero points.

    `keep_OI`: where it is false the weight is 0 and stays 0.
    """

    def __init__(self, rounded: Rounded, keep_OI: torch.Tensor, *, trained: bool) -> None:
        self.rounded = rounded
        self.factor_OG = torch.zeros_like(rounded.scale_OG, requires_grad=True)
        self._stays = None if bool(keep_OI.all()) else ~keep_OI
        self.offset_OI = torch.zeros(rounded.codes_OI.shape, requires_grad=True) if trained else None
        moved = trained and not rounded.scheme.symmetric
        self.shift_OG = torch.zeros_like(rounded.zero_OG, requires_grad=True) if moved else None

    def weight(self) -> torch.Tensor:
        """(O, I) float32, differentiable."""
        rounded = self.rounded
        scale_OG = rounded.scale_OG * (1 + self.factor_OG)
        scale_OG = scale_OG + (stored(scale_OG.detach(), rounded.scheme.dtype) - scale_OG).detach()
        level_OI: torch.Tensor = _Levels.apply(self.offset_OI, self.shift_OG, self)  # type: ignore[no-untyped-call]
        level_OGS = level_OI.reshape(*scale_OG.shape, -1)
        return (level_OGS * scale_OG.unsqueeze(-1)).reshape(rounded.codes_OI.shape)

    @torch.no_grad()
    def finished(self) -> Rounded:
        """As it is now."""
        rounded = self.rounded
        scale_OG = stored(rounded.scale_OG * (1 + self.factor_OG), rounded.scheme.dtype)
        if self.offset_OI is None:
            return replace(rounded, scale_OG=scale_OG)
        level_OI, codes_OI = self.levels()
        rest_OI = taken_away(level_OI - codes_OI)
        if self._stays is not None:
            rest_OI[self._stays] = 0
        return replace(
            rounded,
            codes_OI=codes_OI.to(torch.uint8),
            scale_OG=scale_OG,
            zero_OG=self.zeros(),
            rest_OI=rest_OI.to(torch.bfloat16),
        )

    def settled(self, *, trained: bool) -> "Learned":
        """As it is now, to be learned again."""
        keep_OI = torch.ones_like(self.rounded.codes_OI, dtype=torch.bool) if self._stays is None else ~self._stays
        return Learned(self.finished(), keep_OI, trained=trained)

    @torch.no_grad()
    def zeros(self) -> torch.Tensor:
        """(O, G) the zero points now, float32."""
        zero_OG = self.rounded.zero_OG
        if self.shift_OG is None:
            return zero_OG
        return (zero_OG + self.shift_OG).round_().clamp_(0, self.rounded.scheme.top)

    @torch.no_grad()
    def levels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """((O, I) what codes are before they are whole numbers within the grid, (O, I) the codes now), float32."""
        rounded = self.rounded
        level_OI = rounded.codes_OI.to(torch.float32)
        if self.offset_OI is None:
            return level_OI, level_OI
        level_OI += rounded.rest_OI
        level_OI += self.offset_OI
        if self.shift_OG is not None:
            level_OI += self.spread(self.zeros() - rounded.zero_OG)
        codes_OI = level_OI.round().clamp_(0, rounded.scheme.top)
        if self._stays is not None:
            codes_OI = torch.where(self._stays, self.spread(self.zeros()), codes_OI)
        return level_OI, codes_OI

    def cut(self, level_OI: torch.Tensor) -> torch.Tensor:
        """(O, I) where an end of the grid cuts a level."""
        return (level_OI <= -0.5) | (level_OI >= self.rounded.scheme.top + 0.5)

    def moving(self, which_OI: torch.Tensor) -> torch.Tensor:
        """Of these weights, those that are not 0 to stay 0."""
        return which_OI if self._stays is None else which_OI & ~self._stays

    def spread(self, of_OG: torch.Tensor) -> torch.Tensor:
        """(O, I) of (O, G)."""
        outputs, groups = of_OG.shape
        inputs = self.rounded.codes_OI.shape[1]
        return of_OG.unsqueeze(-1).expand(outputs, groups, inputs // groups).reshape(outputs, inputs)


class _Levels(torch.autograd.Function):
    """code − zero (O, I). Backward, a weight follows its offset unless the grid's end cuts it; then its zero point."""

    @staticmethod
    def forward(
        ctx: Any, offset_OI: torch.Tensor | None, shift_OG: torch.Tensor | None, learned: Learned
    ) -> torch.Tensor:
        level_OI, codes_OI = learned.levels()
        if offset_OI is not None:
            cut_OI = learned.cut(level_OI)
            ctx.save_for_backward(learned.moving(~cut_OI), None if shift_OG is None else learned.moving(cut_OI))
        ctx.groups = learned.rounded.scale_OG.shape
        return codes_OI - learned.spread(learned.zeros())

    @staticmethod
    def backward(ctx: Any, gradient_OI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        follows_OI, cut_OI = ctx.saved_tensors
        shift_OG = None if cut_OI is None else -(gradient_OI * cut_OI).reshape(*ctx.groups, -1).sum(-1)
        return gradient_OI * follows_OI, shift_OG, None


@dataclass
class LearnedBlock:
    """A decoder layer: `weights` by parameter name within it, `vectors` (norms and biases) as they were, `fixed`:
    every other parameter."""

    weights: dict[str, Learned]
    vectors: dict[str, torch.Tensor]
    fixed: dict[str, torch.Tensor]
    factors: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.factors = {name: torch.zeros(len(vector), requires_grad=True) for name, vector in self.vectors.items()}

    def vector(self, name: str) -> torch.Tensor:
        """A norm's weight or a bias now: v + f · max(|v|, the mean of |v|)."""
        vector = self.vectors[name].to(torch.float32)
        return vector + self.factors[name] * vector.abs().clamp(min=float(vector.abs().mean()))

    def parameters(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """All of the layer's parameters in the dtype in which it runs."""
        return (
            dict(self.fixed)
            | {name: self.vector(name).to(dtype) for name in self.vectors}
            | {name: learned.weight().to(dtype) for name, learned in self.weights.items()}
        )

    def leaves(self) -> list[torch.Tensor]:
        """Factors of norms, biases and scales."""
        return [*self.factors.values(), *(one.factor_OG for one in self.weights.values())]

    @torch.no_grad()
    def settled(self, *, trained: bool) -> "LearnedBlock":
        """As it is now, to be learned again."""
        weights = {name: one.settled(trained=trained) for name, one in self.weights.items()}
        vectors = {name: self.vector(name).to(vector.dtype) for name, vector in self.vectors.items()}
        return LearnedBlock(weights, vectors, self.fixed)
