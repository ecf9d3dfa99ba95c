"""8-bit floats by the definition of their format, in float64: nothing here casts."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def numbers() -> Array:
    """Every finite number of 4 exponent bits (bias 7) and 3 of fraction, from 0 up; a number's place is its pattern."""
    found = {fraction / 8 * 2.0**-6 for fraction in range(8)}
    found |= {(1 + fraction / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for fraction in range(8)}
    return np.array(sorted(found - {480.0}))  # the last pattern is NaN


def nearest(x: Array) -> Array:
    """The nearest number of each, the even pattern of two that are as near; the greatest of what lies beyond."""
    grid = numbers()
    size = np.minimum(np.abs(x), grid[-1])
    above = np.searchsorted(grid, size)
    below = np.maximum(above - 1, 0)
    down, up = size - grid[below], grid[above] - size
    chosen = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, below)
    return np.asarray(np.sign(x) * grid[chosen])


def scaled(x_TI: Array, fixed: float | None = None) -> Array:
    """Rows quantized and dequantized with a scale of their own, so that the greatest of a row is 448; or the fixed."""
    most_T1 = np.abs(x_TI).max(-1, keepdims=True)
    scale_T1 = np.where(most_T1 == 0, 1.0, most_T1 / 448) if fixed is None else np.float64(fixed)
    return nearest(x_TI / scale_T1) * scale_T1
