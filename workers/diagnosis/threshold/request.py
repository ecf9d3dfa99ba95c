"""From the text of a FILE to a curve with its bounds, or to the exact place of what is wrong with it.

{"points": [[s, perplexity], …],
 "bounds": {"a": [low, high], "b": …, "s0": …, "k1": …, "k2": …},      optional; null is open
 "dense": perplexity}                                                  optional: of the unmodified model
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import suggestion
from workers.diagnosis.threshold.bounds import NAMES, Bound, Bounds
from workers.diagnosis.threshold.curve import FEWEST_POINTS, MOST_POINTS, Curve

_FIELDS = ("points", "bounds", "dense")
_EXAMPLE = '{"points": [[0.1, 5.14], [0.2, 5.23], …], "bounds": {"b": [0, null]}}'


@dataclass(frozen=True)
class ThresholdRequest:
    """What is to be fitted."""

    curve: Curve
    bounds: Bounds
    dense: float | None


def parse_request(text: str) -> ThresholdRequest:
    """The request. Raises HemostatError (INVALID_REQUEST) with the JSON pointer of the first fault."""
    data = _parse(text)
    if not isinstance(data, dict):
        _refuse(f"The file holds {_kind(data)}, not an object.", "", f"for example {_EXAMPLE}")
    _known(data, _FIELDS, "")
    curve = _curve(data)
    bounds = _bounds(data.get("bounds"))
    try:
        bounds.knee_range(curve)
    except ValueError as error:
        _refuse(f"{error}.", "/bounds/s0", "Let the bounds of s0 meet the measured range.")
    dense = data.get("dense")
    if dense is not None:
        dense = _perplexity(dense, "/dense")
    return ThresholdRequest(curve, bounds, dense)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        _refuse(f"The file is not JSON: {error.msg}, line {error.lineno} column {error.colno}.", "", _EXAMPLE)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        _refuse(f"The file is not JSON that can be read: {reason}.", "", _EXAMPLE)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object names {twice[:64]!a} twice")
    return made


def _curve(data: dict[str, Any]) -> Curve:
    points = data.get("points")
    if points is None:
        missing = "missing" if "points" not in data else "null"
        _refuse(f"The field 'points' is {missing}.", "/points", f"for example {_EXAMPLE}")
    if not isinstance(points, list):
        _refuse(f"points is {_kind(points)}, not a list.", "/points", f"for example {_EXAMPLE}")
    if len(points) < FEWEST_POINTS:
        _refuse(
            f"{len(points)} points are given; a curve needs at least {FEWEST_POINTS}.",
            "/points",
            "The published form has five coefficients; 10 points and more say something about its knee.",
        )
    if len(points) > MOST_POINTS:
        _refuse(f"{len(points)} points are given; at most {MOST_POINTS} are taken.", "/points", "Leave some out.")
    seen: dict[float, int] = {}
    values = []
    for index, point in enumerate(points):
        if not isinstance(point, list) or len(point) != 2:
            what = f"a list of {len(point)}" if isinstance(point, list) else _kind(point)
            _refuse(f"Point {index} is {what}, not a pair [s, perplexity].", f"/points/{index}", "")
        s = _number(point[0], f"/points/{index}/0")
        if not 0 < s <= 1:
            hint = "s is the share removed, above 0 and at most 1."
            if s == 0:
                hint += ' The form goes to 0 there; give the unmodified model\'s perplexity as "dense".'
            elif 1 < s <= 100:
                hint += " Is it a percentage?"
            _refuse(f"s of point {index} is {s:g}, outside (0, 1].", f"/points/{index}/0", hint)
        if s in seen:
            _refuse(
                f"Points {seen[s]} and {index} have the same s, {s:g}.",
                f"/points/{index}/0",
                "Give each s once; average repeated measurements.",
            )
        seen[s] = index
        values.append(_perplexity(point[1], f"/points/{index}/1"))
    return Curve.of(list(seen), values)


def _bounds(data: Any) -> Bounds:
    if data is None:
        return Bounds()
    if not isinstance(data, dict):
        _refuse(f"bounds is {_kind(data)}, not an object.", "/bounds", 'for example {"b": [0, null]}')
    _known(data, NAMES, "/bounds")
    made: dict[str, Bound] = {}
    for name, pair in data.items():
        pointer = f"/bounds/{name}"
        if pair is None:
            continue
        if not isinstance(pair, list) or len(pair) != 2:
            _refuse(f"The bounds of {name} are not a pair [low, high].", pointer, "null is open: [0, null]")
        low, high = (None if side is None else _number(side, f"{pointer}/{at}") for at, side in enumerate(pair))
        if low is not None and high is not None and low > high:
            _refuse(f"The lower bound of {name}, {low:g}, lies above the upper, {high:g}.", pointer, "Swap them.")
        if name == "a" and high is not None and high <= 0:
            _refuse(f"The upper bound of a is {high:g}, and a is positive.", f"{pointer}/1", "")
        made[name] = (low, high)
    return Bounds(**made)


def _known(data: dict[str, Any], names: tuple[str, ...], pointer: str) -> None:
    for name in data:
        if name not in names:
            escaped = name.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")
            _refuse(f"There is no field {name[:64]!a}.", f"{pointer}/{escaped}", suggestion(name, names))


def _number(value: Any, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"A number is needed, not {_kind(value)}.", pointer, "")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _refuse(f"{number} is not a finite number.", pointer, "Leave out what could not be measured.")
    return number


def _perplexity(value: Any, pointer: str) -> float:
    number = _number(value, pointer)
    if number <= 0:
        _refuse(f"A perplexity is positive, not {number:g}.", pointer, "")
    return number


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names[type(value)]


def _refuse(detail: str, pointer: str, hint: str) -> NoReturn:
    raise HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint, pointer=pointer)
