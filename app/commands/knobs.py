"""Knobs as they are written on a command line."""

from __future__ import annotations

import json
import re
from typing import Any

from app.commands.finite import require_finite, text_or_number
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import FEWEST_VALUES, MOST_VALUES
from app.kinds.kind import Kind
from app.reports.format import counted

Json = dict[str, Any]
_EXAMPLES = "for example: --knob sparsity=0.1,0.2, --knob bits=8..2:7, --knob 2.rank=8,16 (of step 2)"
_ENDS = re.compile(r"[-+.\deE]+?\.\.[-+.\deE]+")
_RANGE = re.compile(r"(?P<low>.+?)\.\.(?P<high>.+):(?P<points>\d+)")


def turn_all(kind: Kind, steps: list[Json], knobs: list[str]) -> None:
    """Writes the knobs into the steps, as many as the kind turns. Raises `HemostatError(INVALID_REQUEST)`."""
    for knob in knobs:
        turn(steps, knob)
    turned = sum(isinstance(value, dict) and "sweep" in value for step in steps for value in step.values())
    if turned != kind.knobs:
        hint = kind.more_knobs if turned > kind.knobs else ""
        raise _refused(f"a {kind.name} turns {counted(kind.knobs, 'knob')} by --knob, not {turned}", hint=hint)


def turn(steps: list[Json], knob: str) -> None:
    """Writes a knob into its step, as a request writes it. Raises `HemostatError(INVALID_REQUEST)`."""
    name, equals, values = knob.partition("=")
    step, _, field = name.strip().rpartition(".")
    if not equals or not field or (step and not step.isdecimal()):
        raise _refused(f"--knob {knob}: not [STEP.]FIELD=VALUES")
    if not step and len(steps) > 1:
        which = " or ".join(f"--knob {at}.{knob.strip()} ({one.get('type')})" for at, one in enumerate(steps, 1))
        raise _refused(f"--knob {knob} names no step, and the recipe has {len(steps)} steps", hint=which)
    number = int(step or 1)  # people count from 1
    if not 1 <= number <= len(steps):
        raise _refused(f"--knob {knob}: there is no step {number}; the recipe has {counted(len(steps), 'step')}")
    given = steps[number - 1].get(field)
    if isinstance(given, dict) and "sweep" in given:
        raise _refused(
            f"--knob {knob}: {field} of step {number} has values already; give all values of a field in one --knob"
        )
    turned = _values(values, knob)
    require_finite(turned, f"--knob {knob}")
    steps[number - 1][field] = {"sweep": turned}


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
    ends, _, points = text.partition(":")
    if _ENDS.fullmatch(ends.strip()):
        raise _refused(f"--knob {knob}: points is {points.strip() or 'missing'}, not a whole number")
    values = [_value(part) for part in text.split(",") if part.strip()]
    if len(values) < FEWEST_VALUES:
        given = "one value" if values else "no value"
        raise _refused(f"--knob {knob}: {given} is not enough, give {FEWEST_VALUES} or more")
    return values


def _value(text: str) -> Any:
    if "+" in text:
        return [_value(part) for part in text.split("+")]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text_or_number(text.strip())


def _refused(detail: str, *, hint: str = "") -> HemostatError:
    return HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint or _EXAMPLES)
