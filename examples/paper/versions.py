"""Which code makes a job's models: numbers of an older one are not those of today."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

from pydantic import JsonValue

from workers.surgery import catalogue
from workers.surgery.application import SURGERY_VERSION


def versions(request: JsonValue) -> dict[str, int]:
    """Versions of the surgery and of each step in the recipes of a checked request, as the store of modified
    checkpoints knows them: by a step's name in the catalogue, or "surgery" for what has none of its own."""
    return {"surgery": SURGERY_VERSION} | dict(sorted(_of_steps(request)))


def _of_steps(node: JsonValue) -> Iterator[tuple[str, int]]:
    if isinstance(node, dict):
        name = catalogue.name_of(SimpleNamespace(**node))
        if name in catalogue.WHOLE:
            yield name, int(catalogue.load(name).version)
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _of_steps(inner)
