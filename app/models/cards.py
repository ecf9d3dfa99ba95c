"""What GPUs do at most, as their makers state it: estimates for a GPU are computed from this, and not measured."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Card:
    """Dense FLOP/s of products in bf16 and in float32, and bytes/s of the card's memory. `name`: what the driver's
    name has in it."""

    name: str
    bf16: float
    float32: float
    memory: float


# Of two names that fit the first counts. The A100 is the one of 40 GB.
CARDS: Final = (
    Card("H200", 989e12, 67e12, 4.8e12),
    Card("H100 PCIe", 756e12, 51e12, 2.0e12),
    Card("H100", 989e12, 67e12, 3.35e12),
    Card("A100", 312e12, 19.5e12, 1.555e12),
    Card("RTX 4090", 165e12, 82.6e12, 1.008e12),
    Card("L4", 121e12, 30.3e12, 0.3e12),
)
# Of each rate the lowest.
UNKNOWN: Final = Card("", *(min(getattr(card, rate) for card in CARDS) for rate in ("bf16", "float32", "memory")))


def card_of(name: str) -> Card:
    """The card that the driver calls `name`, such as `NVIDIA A100-SXM4-80GB`; `UNKNOWN` if it is not in the table."""
    words = f" {name.replace('-', ' ')} "
    return next((card for card in CARDS if f" {card.name} " in words), UNKNOWN)
