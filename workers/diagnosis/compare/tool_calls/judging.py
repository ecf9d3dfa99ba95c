"""Is there a call in an answer, and does it fit its tool?

What counts as a call is what counts as one in a text: a JSON object with a name and arguments that are an object. Tags
around it do not matter (`workers.text.token_classes.json_text`). Where the name is a tool's it is a call in every
notation, since no definition is expected in an answer, except for one that is repeated. Arguments must be valid by the
tool's JSON Schema (Draft 2020-12; formats such as dates are not checked)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from app.contracts.text import Tool
from workers.text.token_classes.json_text import calls_in

RULE = (
    "Greedy answers, no grammar and no parser of the server's. A call parses if the answer holds a JSON object with a "
    "name and arguments that are an object. The tags around it and the rest of the answer do not matter. A tool's "
    "definition that is repeated is no call, and what holds NaN or Infinity is not JSON. An answer is valid if it has "
    "a call and all of its calls name one of the tools and have arguments that fit that tool's JSON Schema."
)


@dataclass(frozen=True)
class Judged:
    """The calls of an answer (name and arguments), whether all are valid, and what is wrong with the first that is not
    (of no call: that there is none). `reason` holds no text of the answer."""

    calls: tuple[tuple[str, Any], ...]
    valid: bool
    reason: str

    @property
    def parsable(self) -> bool:
        """Whether there is a call at all."""
        return bool(self.calls)


def judge(answer: str, tools: Sequence[Tool]) -> Judged:
    """Judges an answer against the tools that it may call."""
    schemas = {tool.name: tool.parameters for tool in tools}
    calls = tuple((call.name, call.arguments) for call in calls_in(answer, schemas))
    if not calls:
        started = "{" in answer
        return Judged((), False, "what begins as JSON holds no whole call" if started else "there is no call")
    for name, arguments in calls:
        reason = "a call names no tool" if name not in schemas else _misfit(arguments, schemas[name])
        if reason:
            return Judged(calls, False, reason)
    return Judged(calls, True, "")


def _misfit(arguments: Any, schema: dict[str, Any]) -> str:
    """Which rule of the schema is broken, and where; "" where none is."""
    validator = Draft202012Validator(schema, registry=Registry())
    try:
        error = next(iter(validator.iter_errors(arguments)), None)
    except (Unresolvable, RecursionError, ArithmeticError, ValueError):  # numbers beyond all bounds among them
        return "the schema cannot be followed"
    if error is None:
        return ""
    # Names of arguments are the tool's, values the model's: only those that the schema knows are reported.
    known = set(schema.get("properties") or {})
    place = next((str(part) for part in error.absolute_path if str(part) in known), "")
    return f"arguments break the schema's {error.validator}" + (f" at {place}" if place else "")
