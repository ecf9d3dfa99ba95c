"""Parts, layers and texts in words."""

from __future__ import annotations

from collections.abc import Sequence

from workers.analysis.numerals import counted

# Parts that a sentence names.
_NAMED = 4


def named(parts: Sequence[str]) -> str:
    """The first few by name."""
    rest = len(parts) - _NAMED
    return ", ".join(parts[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def listed(layers: Sequence[int]) -> str:
    """Layers by their numbers, with the noun."""
    return f"layer{'' if len(layers) == 1 else 's'} {', '.join(map(str, layers))}"


def on_text(tokens: int, documents: int) -> str:
    """So many tokens of so many documents."""
    return f"{counted(tokens, 'token')} of {counted(documents, 'document')}"
