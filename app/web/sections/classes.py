"""Words about kinds of token that several reports use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.contracts.report import TokenClassSlice
from app.kinds.surface.report import SurfaceTokenClass
from app.kinds.sweep.report import SweepTokenClass
from app.kinds.tasks.report import ItemClass
from app.reports.blocks import Fact
from app.web import format as fmt
from app.web.untrusted import visible

LEVEL = 0.05
NONE = "In no class"
# Of a part with too few documents.
OVER_WINDOWS = "intervals over windows"
# A p value below is said to be below: its digits speak of the approximation.
LEAST = 0.001


def definitions(found: Iterable[TokenClassSlice | SweepTokenClass | SurfaceTokenClass | ItemClass]) -> tuple[Fact, ...]:
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
