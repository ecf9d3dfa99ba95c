"""Which of the parts that differ were asked for, by kind and by layer, and what differs beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.kinds.attribute.report import SiteKind
from app.kinds.attribute.request import LEVELS, SiteLevel
from workers.diagnosis.attribute.reach import layers_told
from workers.diagnosis.attribute.sites import Site

NAMES: Final[dict[SiteKind, tuple[str, str]]] = {
    "layer": ("layer", "layers"),
    "module": ("linear module", "linear modules"),
    "norm": ("norm", "norms"),
    "heads": ("group of heads", "groups of heads"),
    "expert": ("expert", "experts"),
    "embedding": ("embedding", "embeddings"),
    "head": ("head", "heads"),
}


@dataclass(frozen=True)
class Scope:
    """Parts that were asked for: those of `levels` in `layers` and, where these are all (None), what stands outside.

    `chosen` differ, `unchanged` is how many are the reference's own; `other_kinds` differ in the same layers and are of
    other kinds. `elsewhere` differ outside of these layers, which is looked up only where nothing within them does.
    """

    levels: tuple[SiteLevel, ...] = LEVELS
    layers: Collection[int] | None = None
    chosen: tuple[Site, ...] = ()
    unchanged: int = 0
    other_kinds: tuple[Site, ...] = ()
    elsewhere: tuple[Site, ...] = ()

    @property
    def considered(self) -> int:
        """How many parts that differ were asked for."""
        return len(self.chosen)

    @property
    def whole_model(self) -> bool:
        """Whether layers, and what stands outside them, were asked for in all of the model: together they are all that
        differs, whatever finer kinds were left out."""
        return self.layers is None and "layer" in self.levels

    @property
    def beside(self) -> int:
        """How many parts are known to differ that were not asked for."""
        return len(self.other_kinds) + len(self.elsewhere)


def scope_of(
    sites: Sequence[Site],
    changed: Sequence[Site],
    levels: tuple[SiteLevel, ...],
    layers: Collection[int] | None,
    *,
    everywhere: Callable[[], Sequence[Site]],
) -> Scope:
    """Of all parts of these layers (`sites`) and those of them that differ. `everywhere` gives all parts of the model
    that differ."""
    chosen = tuple(site for site in changed if _asked(site, levels))
    elsewhere = everywhere() if layers is not None and not changed else ()
    return Scope(
        levels,
        layers,
        chosen,
        sum(_asked(site, levels) for site in sites) - len(chosen),
        tuple(site for site in changed if not _asked(site, levels)),
        tuple(elsewhere),
    )


def _asked(site: Site, levels: tuple[SiteLevel, ...]) -> bool:
    return site.layer is None or site.kind in levels


def parts_differ(scope: Scope) -> str:
    """How many parts differ of those that were asked for, as the beginning of a sentence."""
    of = " of the chosen kinds" if scope.other_kinds else ""
    return f"1 part{of} differs" if scope.considered == 1 else f"{scope.considered} parts{of} differ"


def asked_for(scope: Scope) -> str:
    """Of what the worst part is the worst, as it follows that noun; empty where all that differs was asked for."""
    told = ""
    if scope.other_kinds and "layer" not in scope.levels:
        kinds = [NAMES[level][1] for level in LEVELS if level in scope.levels]
        told = f" of the kinds asked for ({_joined(kinds, 'and')})"
    if scope.layers is not None:
        count = len(set(scope.layers))
        layers = "the one layer asked for" if count == 1 else f"the {count} layers asked for"
        told += f" {'in' if told else 'of'} {layers}"
    return told


def nothing_differs(scope: Scope) -> str:
    """What there is to say where nothing that was asked for differs, in a sentence."""
    within = "" if scope.layers is None else layers_told(scope.layers)
    if scope.other_kinds:
        names = [NAMES[level][0] for level in LEVELS if level in scope.levels]
        where = f" in {within}" if within else ""
        outside = "" if within else ", and nothing outside the layers"
        there = " there" if within else ""
        differ = _counted(scope.other_kinds)
        return f"No {_joined(names, 'or')}{where} differs{outside}; what does differ{there}: {differ}."
    if scope.elsewhere:
        beyond = [site.name for site in scope.elsewhere if site.layer is None]
        numbers = {site.layer for site in scope.elsewhere if site.layer is not None}
        places = _joined([*([layers_told(numbers)] if numbers else []), *beyond], "and")
        count = len(scope.elsewhere)
        return (
            f"No part of {within} differs; elsewhere {count} {'part does' if count == 1 else 'parts do'}: "
            f"{_counted(scope.elsewhere)}, in {places}."
        )
    return "No part differs: every weight of the candidate is the reference's."


def _counted(sites: Iterable[Site]) -> str:
    """How many there are of each kind."""
    counts = Counter(site.kind for site in sites)
    told = [f"{counts[kind]} {names[counts[kind] > 1]}" for kind, names in NAMES.items() if counts[kind]]
    return _joined(told, "and")


def _joined(words: Sequence[str], last: str) -> str:
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end
