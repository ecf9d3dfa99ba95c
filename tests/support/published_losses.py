"""The published losses at few bits, in per cent of the reference, and the rounded values that they are of.

Accuracy in MMLU by llama.cpp's formats, of 'Phase transitions in large language model
compression' (npj Artificial Intelligence 2026, 2:21); the reference is the most precise format that was measured.
"""

from __future__ import annotations

from typing import NamedTuple


class Loss(NamedTuple):
    """At few bits, at the reference, and the loss in per cent that was published of the two."""

    few_bits: float
    reference: float
    loss: float


# MMLU at two bits against 8. The loss of Qwen2.5-1.5B is against a reference of 16 bits that is not printed, and
# Qwen2.5-0.5B guesses.
MMLU = {
    "Qwen2.5-3B": Loss(0.500, 0.664, 24.7),
    "Qwen2.5-7B": Loss(0.482, 0.683, 29.4),
    "Qwen2.5-14B": Loss(0.731, 0.784, 6.8),
    "Qwen2.5-32B": Loss(0.723, 0.824, 12.3),
    "Qwen2.5-72B": Loss(0.818, 0.843, 3.0),
}
