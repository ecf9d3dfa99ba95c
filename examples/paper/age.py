"""Whether the code has moved on since the page was measured: a page tells of each claim the versions of what made its
models, and newer ones would make others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from app.cli.output import Exit
from examples.paper.elsewhere import BETWEEN

VERSIONS: Final = "- **Versions**: "
_SECTION: Final = re.compile(r'^<a id="([a-z0-9-]+)"></a>$', re.MULTILINE)


def told(page: str) -> Mapping[str, str]:
    """The versions that a written page has of each claim, as `made_by` writes them; none of a claim that it has no
    numbers of."""
    _, *parts = _SECTION.split(page)
    found = {}
    for claim, section in zip(parts[::2], parts[1::2], strict=True):
        for line in section.splitlines():
            if line.startswith(VERSIONS):
                found[claim] = line.removeprefix(VERSIONS)
    return found


def moved_on(page: str, today: Mapping[str, str]) -> Mapping[str, str]:
    """Of each claim whose models the code of today makes otherwise than those of the page were made: the versions of
    both, those alone that differ, such as `surgery 4, now surgery 5`."""
    then = told(page)
    return {
        claim: f"{_without(versions, today[claim])}, now {_without(today[claim], versions)}"
        for claim, versions in then.items()
        if claim in today and versions != today[claim]
    }


def answer(page: str, today: Mapping[str, str]) -> tuple[Exit, list[str]]:
    """What `moved_on` has, in lines: claims of the same change together, or that there are none. With the exit status
    of that: `RULE_FAILS` if the code has moved on, `FAILED` if the page does not say from what."""
    if not told(page):
        return Exit.FAILED, ["The page names no versions that its models were made by."]
    if moved := moved_on(page, today):
        return Exit.RULE_FAILS, _by_change(moved)
    return Exit.OK, ["The models of the page were made by the versions of today."]


def _by_change(moved: Mapping[str, str]) -> list[str]:
    by_change: dict[str, list[str]] = {}
    for claim, change in moved.items():
        by_change.setdefault(change, []).append(claim)
    return [f"{change}: {', '.join(claims)}" for change, claims in by_change.items()]


def _without(one: str, other: str) -> str:
    return ", ".join(sorted(set(one.split(BETWEEN)) - set(other.split(BETWEEN)))) or "none"
