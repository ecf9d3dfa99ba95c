"""What a number takes as it is stored: the bits per weight of whatever is on no grid."""

import torch


def width_of(tensor: torch.Tensor) -> float:
    """Bits of one number."""
    return float(tensor.element_size() * 8)
