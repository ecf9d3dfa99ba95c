"""e4m3, the 8-bit float that kernels multiply: numbers of the format times a scale, of weights and of what exists only
while a model runs.

Micikevicius et al., *FP8 Formats for Deep Learning* (arXiv 2209.05433): a sign, 4 bits of exponent (bias 7), 3 of
fraction. Greatest number 448, least above 0 2^-9, no infinity. scale = max|x| / 448. Float32, halves to even.

Codes are the numbers of the format themselves: bf16 and f16 hold each exactly.

Shapes: … any leading dimensions, S the values that share a scale.
"""

import torch

GREATEST = 448.0


def nearest(ratio_S: torch.Tensor) -> torch.Tensor:
    """The nearest numbers of the format, float32; what is beyond ±448 is cut, NaN stays."""
    return ratio_S.to(torch.float32).clamp(-GREATEST, GREATEST).to(torch.float8_e4m3fn).to(torch.float32)


def codes(x_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes (…, S), scale (…, 1)), float32: a scale of its own for the last dimension. Codes times scale are NaN if
    x is not finite."""
    x_S = x_S.to(torch.float32)
    scale_1 = x_S.abs().amax(dim=-1, keepdim=True) / GREATEST
    scale_1 = torch.where(scale_1 == 0, 1.0, scale_1)  # zeros, or numbers too small to tell apart: any other gives 0
    return nearest(x_S / scale_1), scale_1


def codes_on(x_S: torch.Tensor, scale: float) -> torch.Tensor:
    """Codes (…, S), float32, with a fixed scale."""
    return nearest(x_S.to(torch.float32) / scale)
