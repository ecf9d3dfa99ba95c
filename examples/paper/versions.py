"""Which code makes a job's models: numbers of an older one are not those of today."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import JsonValue

from app.recipes.recipe import STEPS
from workers.surgery.application import SURGERY_VERSION
from workers.surgery.steps import runner_of


def versions(request: JsonValue) -> dict[str, int]:
    """Versions of the surgery and of each step in the recipes of a checked request, as the store of modified
    checkpoints knows them: by a step's type, or "surgery" for what has none of its own."""
    return {"surgery": SURGERY_VERSION} | dict(sorted(_of_steps(request)))


def _of_steps(node: JsonValue) -> Iterator[tuple[str, int]]:
    if isinstance(node, dict):
        kind = STEPS.get(str(node.get("type")))
        asked: dict[str, Any] = node
        if kind is not None and not (step := kind.model_construct(**asked)).is_streamed:
            yield step.type, int(runner_of(step).version)
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _of_steps(inner)
