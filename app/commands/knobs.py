"""Knobs as they are written on a command line."""

from __future__ import annotations

import json
import re
from typing import Any

from app.commands.finite import require_finite, text_or_number
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import FEWEST_VALUES, MOST_VALUES
from app.kinds.kind import Kind

Json = dict[str, Any]
_EXAMPLES = "for example: --knob sparsity=0.1,0.2, --knob bits=8..2:7, --knob 1.rank=8,16 (of step 1)"
# By how many knobs a kind turns, and how many are given.
_MISSING = {
    (1, 0): "one knob, and none is given: --knob is missing",
    (2, 0): "two knobs, and none is given: --knob is missing twice",
    (2, 1): "two knobs, and one is given: a second --knob is missing",
}
_ENDS = re.compile(r"[-+.\deE]+?\.\.[-+.\deE]+")
_RANGE = re.compile(r"(?P<low>.+?)\.\.(?P<high>.+):(?P<points>\d+)")


def turn_all(kind: Kind, steps: list[Json], knobs: list[str]) -> None:
    """Writes the knobs into the steps, as many as the kind turns; more than two are the service's to refuse, at their
    place. Raises `HemostatError(INVALID_REQUEST)`."""
    if kind.knobs == 1:
        _require_one(kind, knobs)
    for knob in knobs:
        turn(steps, knob)
    turned = sum(isinstance(value, dict) and "sweep" in value for step in steps for value in step.values())
    if turned < kind.knobs:
        raise _refused(f"a {kind.name} turns {_MISSING[kind.knobs, turned]}")


def _require_one(kind: Kind, knobs: list[str]) -> None:
    """Before any of them is read: that there are two is what is wrong, whatever else is. Values of one field that stand
    in several are given by `turn`."""
    fields = {knob.partition("=")[0].strip() for knob in knobs}
    if len(fields) > 1:
        told = " and ".join(f"--knob {knob}" for knob in knobs)
        raise _refused(f"a {kind.name} turns one knob, and {len(knobs)} are given: {told}", hint=kind.more_knobs)


def turn(steps: list[Json], knob: str) -> None:
    """Writes a knob into its step, as a request writes it. Raises `HemostatError(INVALID_REQUEST)`."""
    name, equals, values = knob.partition("=")
    step, _, field = name.strip().rpartition(".")
    if not equals or not field or (step and not step.isdigit()):
        raise _refused(f"--knob {knob}: not [STEP.]FIELD=VALUES")
    if not step and len(steps) > 1:
        which = " or ".join(f"--knob {at}.{knob.strip()} ({one.get('type')})" for at, one in enumerate(steps))
        raise _refused(f"--knob {knob}: the recipe has {len(steps)} steps, and it does not say which", hint=which)
    index = int(step or 0)
    if index >= len(steps):
        raise _refused(
            f"--knob {knob}: the recipe has {_steps(len(steps))}, and none of number {index}; steps are counted from 0"
        )
    given = steps[index].get(field)
    if isinstance(given, dict) and "sweep" in given:
        raise _refused(
            f"--knob {knob}: {field} of step {index} has values already, and all of a field stand in one --knob"
        )
    turned = _values(values, knob)
    require_finite(turned, f"--knob {knob}")
    steps[index][field] = {"sweep": turned}


def _steps(count: int) -> str:
    return "no step" if not count else f"{count} step{'' if count == 1 else 's'}"


def _values(text: str, knob: str) -> Any:
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        return _listed(text, knob)
    try:
        low, high = (json.loads(found[end]) for end in ("low", "high"))
    except json.JSONDecodeError:
        raise _refused(f"--knob {knob}: the ends of the range are no numbers") from None
    if low == high:
        raise _refused(f"--knob {knob}: the range begins where it ends")
    points = int(found["points"])
    if not FEWEST_VALUES <= points <= MOST_VALUES:
        raise _refused(f"--knob {knob}: points is {points}, not a whole number from {FEWEST_VALUES} to {MOST_VALUES}")
    return {"from": low, "to": high, "points": points}


def _listed(text: str, knob: str) -> list[Any]:
    ends, colon, points = text.partition(":")
    if _ENDS.fullmatch(ends.strip()):
        if colon and points.strip():
            raise _refused(f"--knob {knob}: points is {points.strip()}, not a whole number")
        raise _refused(f"--knob {knob}: the range has no points: FROM..TO:POINTS")
    values = [_value(part) for part in text.split(",") if part.strip()]
    if len(values) < FEWEST_VALUES:
        given = "one value" if values else "no value"
        raise _refused(f"--knob {knob}: {given} shows no course, and {FEWEST_VALUES} are the fewest")
    return values


def _value(text: str) -> Any:
    if "+" in text:
        return [_value(part) for part in text.split("+")]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text_or_number(text.strip())


def _refused(detail: str, *, hint: str = _EXAMPLES) -> HemostatError:
    return HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint)
