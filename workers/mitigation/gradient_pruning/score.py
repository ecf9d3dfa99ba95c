"""What the loss of a weight is expected to cost, in nats per position, from gradients of the divergence.

Zeroing w_oi costs ½ w² F_oi, F the diagonal of the Fisher information. Two estimates of F are at hand: E[g²], exact in
expectation but noisy with few windows, and E[δ_o²]·E[x_i²], smooth but blind to how the two go together. Their mean is
taken. Written with square roots, |w|·√(½(E[δ²]·‖x‖² + ‖g‖²)) has the three parts of GBLM (Das et al. 2023, arXiv
2311.04902) and Wanda++ (arXiv 2503.04992), |w|, ‖x‖ and ‖g‖, but with one unit, so that modules can be compared and no
factor between them is to be tuned. The diagonal Fisher as a price of pruning is Theis et al. 2018 (arXiv 1801.05787)
and, before, OBD (LeCun et al. 1989). The mean of the two estimates, and what follows on several passes, are ours.

At a candidate that has lost weights already the gradients of KL(reference ‖ candidate) tell where it hurts now. Their
squares are scaled, by one number for all modules, to the same total price, and averaged with the Fisher's. The more
passes, the more the price is that of the sparse model.

Shapes: O output dimension, I input dimension.
"""

from collections.abc import Callable, Mapping

import torch

from workers.mitigation.gradients import LayerGradients


def fisher_diagonal(of: LayerGradients) -> torch.Tensor:
    """(O, I) the mean of the two estimates of F, float32."""
    smooth_OI = of.outputs_O[:, None] * of.inputs_I
    return smooth_OI if of.squares_OI is None else (smooth_OI + of.squares_OI.to(smooth_OI.device)) / 2


# What a layer's gradients say of its weights: the price of a weight without w²/2
Importance = Callable[[LayerGradients], torch.Tensor]


def price(weight_OI: torch.Tensor, fisher_OI: torch.Tensor) -> torch.Tensor:
    """(O, I) ½ w² F: nats per position that zeroing each weight alone is expected to cost."""
    return weight_OI.to(torch.float32).square() * fisher_OI / 2


class Prices:
    """The diagonals of all addressed modules, accumulated over passes.

    `read` gives the weights, `importance` what of a pass is accumulated. The sums stand where the first pass's squares
    stand: in mapped files, on the host.
    """

    def __init__(self, read: Callable[[str], torch.Tensor], importance: Importance = fisher_diagonal) -> None:
        self._read, self._importance = read, importance
        self.fisher: dict[str, torch.Tensor] = {}
        self._total = 0.0
        self._passes = 0

    def add(self, found: Mapping[str, LayerGradients]) -> None:
        """One pass more; the first sets the scale."""
        total = 0.0
        for name, of in found.items():
            total += float(price(self._read(name), self._importance(of)).sum(dtype=torch.float64))
        if self._passes == 0:
            self._total = total
        scale = self._total / total if total > 0 else 0.0
        for name, of in found.items():
            now_OI = self._importance(of)
            known_OI = self.fisher.get(name)
            if known_OI is None:
                self.fisher[name] = now_OI if of.squares_OI is None else of.squares_OI.copy_(now_OI)
            else:
                share = 1 / (self._passes + 1)
                known_OI.mul_(1 - share).add_(now_OI.to(known_OI.device), alpha=share * scale)
        self._passes += 1

    def of(self, name: str) -> torch.Tensor:
        """(O, I) the price of each weight of a module."""
        weight_OI = self._read(name)
        return price(weight_OI, self.fisher[name].to(weight_OI.device))
