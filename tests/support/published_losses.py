"""The published losses at few bits, in per cent of the reference, and the rounded values that they are of.

Perplexity on WikiText-2 by llama.cpp's formats, and accuracy in MMLU, of 'Phase transitions in large language model
compression' (npj Artificial Intelligence 2026, 2:21); the reference is the most precise format that was measured.
"""

from __future__ import annotations

from typing import NamedTuple


class Loss(NamedTuple):
    """At few bits, at the reference, and the loss in per cent that was published of the two."""

    few_bits: float
    reference: float
    loss: float


# Two bits against 16, else 8; LLaMA-2-70B, of which neither is printed, against 5.
PERPLEXITY = {
    "Qwen2.5-0.5B": Loss(14.82, 13.64, 8.6),
    "Qwen2.5-1.5B": Loss(14.63, 9.66, 51.6),
    "Qwen2.5-3B": Loss(12.33, 9.12, 35.2),
    "Qwen2.5-7B": Loss(9.21, 7.95, 15.8),
    "Qwen2.5-14B": Loss(7.74, 6.78, 14.1),
    "Qwen2.5-32B": Loss(6.80, 5.98, 13.8),
    "Qwen2.5-72B": Loss(6.34, 5.26, 20.3),
    "LLaMA-2-7B": Loss(6.69, 6.157, 8.6),
    "LLaMA-2-13B": Loss(5.90, 5.61, 5.2),
    "LLaMA-2-70B": Loss(4.44, 4.14, 7.4),
    "Gemma-3-1B": Loss(30.69, 22.53, 36.2),
    "Gemma-3-4B": Loss(19.03, 14.25, 33.6),
    "Gemma-3-12B": Loss(11.27, 9.29, 21.3),
    "Gemma-3-27B": Loss(10.25, 7.99, 28.3),
}
# Half of the last digit that is printed of a perplexity, and of a loss.
PRINTED, PRINTED_LOSS = 0.005, 0.05

# Three bits against 16, else 8: all that is published of their losses is that none is above MOST_AT_THREE_BITS.
THREE_BITS = {
    "Qwen2.5-0.5B": (14.25, 13.64),
    "Qwen2.5-1.5B": (10.61, 9.66),
    "Qwen2.5-3B": (9.70, 9.12),
    "Qwen2.5-7B": (8.19, 7.95),
    "Qwen2.5-14B": (6.95, 6.78),
    "Qwen2.5-32B": (6.26, 5.98),
    "Qwen2.5-72B": (5.58, 5.26),
    "R1-Distill-Qwen-14B": (9.81, 9.39),
    "R1-Distill-Llama-8B": (13.96, 12.85),
    "Llama-3.1-8B": (7.81, 7.41),
    "LLaMA-2-7B": (6.34, 6.157),
    "LLaMA-2-13B": (5.77, 5.61),
    "LLaMA-2-70B": (4.28, 4.14),
    "Gemma-3-1B": (23.93, 22.53),
    "Gemma-3-4B": (13.63, 14.25),
    "Gemma-3-12B": (9.69, 9.29),
    "Gemma-3-27B": (8.30, 7.99),
}
MOST_AT_THREE_BITS = 9.9

# MMLU at two bits against 8. The loss of Qwen2.5-1.5B is against a reference of 16 bits that is not printed, and
# Qwen2.5-0.5B guesses.
MMLU = {
    "Qwen2.5-3B": Loss(0.500, 0.664, 24.7),
    "Qwen2.5-7B": Loss(0.482, 0.683, 29.4),
    "Qwen2.5-14B": Loss(0.731, 0.784, 6.8),
    "Qwen2.5-32B": Loss(0.723, 0.824, 12.3),
    "Qwen2.5-72B": Loss(0.818, 0.843, 3.0),
}
