"""What a token counts when a layer's inputs are summed up: by the gradient of the divergence at the layer's output.

The Fisher information of a linear layer is E[δδᵀ ⊗ x xᵀ], δ the gradient at its output, x its input. K-FAC (arXiv
1503.05671) takes δ and x for independent, which loses that few tokens carry much: on the first one, say, attention
rests, and what is wrong there is wrong everywhere. Weighting x xᵀ by ‖δ‖² of the same token keeps that, at the price of
one backward pass. Tokens whose gradient is small in this text count too, or little text would decide everything: a
share of the weight is the same for all. The weighting and the share are ours.

Shapes: N windows, L tokens of a window, T all tokens of a text in their order.
"""

import torch

# Of what a token counts, so much is decided by its gradient.
SHARE = 0.5
# Gradients are gathered over so many tokens at the beginning of the text.
GRADIENT_TOKENS = 8192


def importance(positions_NL: torch.Tensor, tokens: int, share: float = SHARE) -> torch.Tensor:
    """(T) float32, mean 1. `positions_NL`: ‖δ‖² of the first windows of a text of `tokens` tokens; later tokens count
    what all count alike."""
    power_T = positions_NL.reshape(-1).to(torch.float32)
    weight_T = torch.full((tokens,), 1 - share)
    mean = float(power_T.mean())
    if mean == 0:
        return torch.ones(tokens)
    weight_T[: len(power_T)] += share * (tokens / len(power_T)) * power_T / mean
    return weight_T
