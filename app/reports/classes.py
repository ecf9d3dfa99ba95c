"""Words about kinds of token that several reports use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from app.reports import format as fmt
from app.reports.blocks import Fact
from app.reports.untrusted import visible

LEVEL = 0.05
NONE = "In no class"
# Of a part with too few documents.
OVER_WINDOWS = "intervals over windows"
# A p value below is reported to be below: its digits speak of the approximation.
LEAST = 0.001


class _Defined(Protocol):
    """A class of tokens as any report has it."""

    @property
    def title(self) -> str: ...

    @property
    def definition(self) -> str: ...


def definitions(found: Iterable[_Defined]) -> tuple[Fact, ...]:
    """What each class is, in the order of the catalogue."""
    return tuple(Fact(visible(one.title), visible(one.definition)) for one in found)


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def p_value(value: float | None) -> str:
    """An adjusted p value as text."""
    if value is None:
        return "p not known"
    return f"p < {LEAST:g}" if value < LEAST else f"p = {fmt.number(value, 2)}"


def lowered(title: str) -> str:
    """A title within a sentence; JSON keeps its capitals."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]
