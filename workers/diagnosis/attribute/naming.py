"""Parts and layers in words."""

from __future__ import annotations

from collections.abc import Sequence

from workers.diagnosis.attribute.search import Measured

# Parts that a sentence names.
_NAMED = 4


def count(parts: Sequence[Measured]) -> str:
    """How many parts, with the noun."""
    return "1 part" if len(parts) == 1 else f"{len(parts)} parts"


def some(parts: Sequence[Measured]) -> str:
    """The first few by name."""
    rest = len(parts) - _NAMED
    return ", ".join(one.site.name for one in parts[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def listed(layers: list[int]) -> str:
    """Layers by their numbers, with the noun."""
    return f"layer{'' if len(layers) == 1 else 's'} {', '.join(map(str, layers))}"


def on_text(tokens: int, documents: int) -> str:
    """So many tokens of so many documents."""
    return f"{tokens} token{'' if tokens == 1 else 's'} of {documents} document{'' if documents == 1 else 's'}"
