"""Jobs on tiny models: their text, and attempts at them in one home and one engine room."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from app.kinds.compare.request import CompareRequest
from app.models.knobs import lift
from app.settings import Settings
from tests.support.attempts import Context
from workers.diagnosis.registry import HANDLERS
from workers.engine.room import EngineRoom
from workers.process.handler import JobCancelled

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")
RTN3: Json = {"type": "quantize.rtn", "bits": 3, "group_size": 32}


def words(number: int, count: int) -> str:
    """`count` words that the number draws."""
    return " ".join(np.random.default_rng(number).choice(WORDS, count))


def document(number: int, count: int = 60, domain: str = "") -> Json:
    """A document of drawn words."""
    if domain:
        return {"id": f"{domain}-{number}", "domain": domain, "text": words(number, count)}
    return {"id": f"d{number}", "text": words(number, count)}


def sentences(count: int) -> list[Json]:
    """Documents of every class that a text can have; the first three of them hold JSON."""
    found = []
    for number in range(count):
        drawn = words(number, 12)
        text = f"{drawn} {number}45, 7.{number} and {drawn}: Anna saw it. He saw Anna."
        found.append({"id": f"s{number}", "text": text + ' {"dog": [1, 2]}' * (number < 3)})
    return found


def inline(documents: list[Json]) -> Json:
    """A text of these documents."""
    return {"source": "inline", "documents": documents}


def body(kind: str, recipe: list[Json], documents: list[Json]) -> Json:
    """Of a request: `tiny` and `tiny` after a recipe, in windows of 64 tokens."""
    candidate = {"model": "tiny", "recipe": recipe}
    text = inline(documents)
    return {"kind": kind, "reference": {"model": "tiny"}, "candidate": candidate, "text": text, "window": 64}


def validated(given: Mapping[str, Any]) -> Any:
    """The request of a body; values of knobs may stand in its recipe."""
    return HANDLERS.request(given["kind"], lift(dict(given)))


@dataclass
class Jobs:
    """Attempts at jobs in one home; `context` is that of the last one."""

    settings: Settings
    room: EngineRoom
    folder: Path
    context: Context = field(init=False, repr=False)

    def attempt(self, name: str = "", **stop: Any) -> Context:
        """The context of another attempt at the job of this name."""
        self.context = Context(self.settings, self.folder / name, **stop)
        return self.context

    def run(self, asked: Any, name: str = "", **stop: Any) -> Any:
        """The report of an attempt at a request."""
        return HANDLERS.handler(asked.kind)(asked, self.attempt(name, **stop), self.room)

    def stopped(self, asked: Any, name: str = "", **stop: Any) -> Context:
        """The context of an attempt that is stopped."""
        with pytest.raises(JobCancelled):
            self.run(asked, name, **stop)
        return self.context

    def compared(self, asked: Any, recipe: Any, name: str = "compare") -> Any:
        """What a comparison reports that asks what `asked` does, at one recipe."""
        given = {key: value for key, value in asked.model_dump().items() if key in CompareRequest.model_fields}
        steps = [step.model_dump() if isinstance(step, BaseModel) else dict(step) for step in recipe]
        candidate = given["candidate"] | {"recipe": steps}
        return self.run(validated(given | {"kind": "compare", "candidate": candidate}), name)
