"""Which of the parts that differ were asked for, by kind and by layer, and what differs beside them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from app.kinds.attribute.request import LEVELS, SiteLevel
from workers.diagnosis.attribute.sites import Site


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
