"""Sums of outer products, which are symmetric: only blocks on and above the diagonal are computed.

Shapes: T tokens of a batch, I input dimension.
"""

import torch

# Columns of a block: at 576 to 1,536 inputs the two thirds of the arithmetic that are left run at full speed.
_BLOCK = 192


def add_upper(sum_II: torch.Tensor, left_TI: torch.Tensor, right_TI: torch.Tensor) -> None:
    """Adds leftᵀ right, which must be symmetric, to the blocks on and above the diagonal; those below stay as they
    are."""
    for first in range(0, len(sum_II), _BLOCK):
        block = slice(first, first + _BLOCK)
        sum_II[block, first:].addmm_(left_TI[:, block].T, right_TI[:, first:])


def mirror(sum_II: torch.Tensor) -> torch.Tensor:
    """Fills what is below the diagonal from above it, in place, and returns it."""
    for first in range(0, len(sum_II), _BLOCK):
        block, after = slice(first, first + _BLOCK), slice(first + _BLOCK, None)
        corner_BB = sum_II[block, block]
        sum_II[block, block] = corner_BB.triu() + corner_BB.triu(1).T
        sum_II[after, block] = sum_II[block, after].T
    return sum_II
