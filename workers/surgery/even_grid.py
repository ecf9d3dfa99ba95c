"""Even grids for what exists only while a model runs: inputs of linear layers, keys, values.

The same arithmetic as `quantize_rtn` has for weights, b bits. Symmetric: scale = max|x| / (2^(b−1) − 1), codes from
−(2^(b−1) − 1) up. Asymmetric: scale = (max − min) / (2^b − 1), zero = round(−min / scale), code = round(x / scale) +
zero, cut to 0 … 2^b − 1. Min and max include 0, so that 0 stays 0. Float32, halves to even.

Codes are given *centred*, code − zero: whole numbers of at most 255, which bf16 and f16 hold exactly.

Shapes: … any leading dimensions, S the values that share a grid.
"""

import torch


def codes(x_S: torch.Tensor, *, bits: int, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(centred codes (…, S), scale (…, 1)), float32: a grid of its own for the last dimension. NaN if x is not
    finite."""
    x_S = x_S.to(torch.float32)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale_1 = _usable(x_S.abs().amax(dim=-1, keepdim=True) / top)
        return (x_S / scale_1).round_().clamp_(-top, top), scale_1
    top = 2**bits - 1
    least_1 = x_S.amin(dim=-1, keepdim=True).clamp_(max=0)
    most_1 = x_S.amax(dim=-1, keepdim=True).clamp_(min=0)
    scale_1 = _usable((most_1 - least_1) / top)
    zero_1 = (-least_1 / scale_1).round_().clamp_(0, top)
    return (x_S / scale_1).round_().add_(zero_1).clamp_(0, top).sub_(zero_1), scale_1


def codes_on(x_S: torch.Tensor, grid: tuple[float, int], *, bits: int, symmetric: bool) -> torch.Tensor:
    """Centred codes (…, S), float32, on a fixed grid (scale, zero); what is beyond its ends is cut."""
    scale, zero = grid
    top = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    least = -top if symmetric else -zero
    return (x_S.to(torch.float32) / scale).round_().clamp_(least, least + (2 * top if symmetric else top))


def fixed_grid(low: float, high: float, *, bits: int, symmetric: bool) -> tuple[float, int]:
    """(scale, zero) of the grid that holds everything from `low` to `high`, and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return (max(high, -low) / (2 ** (bits - 1) - 1) or 1.0), 0
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, round(-low / scale)


def on_grid(x_S: torch.Tensor, *, bits: int, symmetric: bool) -> torch.Tensor:
    """x quantized and dequantized, a grid for the last dimension, in the dtype of x."""
    codes_S, scale_1 = codes(x_S, bits=bits, symmetric=symmetric)
    return codes_S.mul_(scale_1).to(x_S.dtype)


def _usable(scale: torch.Tensor) -> torch.Tensor:
    """A scale of 0 belongs to zeros, or to numbers too small to tell apart: any other gives zeros."""
    return torch.where(scale == 0, 1.0, scale)
