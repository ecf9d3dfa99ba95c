"""From the text of a FILE to a curve with its bounds, or to the exact place of what is wrong with it.

{"points": [[s, perplexity], …],                                       or "data"
 "bounds": {"a": [low, high], "b": …, "s0": …, "k1": …, "k2": …},      optional; null is open
 "dense": perplexity,                                                  optional: of the unmodified model
 "params": {"a": …, "b": …, "s0": …, "k1": …, "k2": …},                optional: as published for these points
 "published_log_sse": …}                                               optional: as stated with them

or an object of such curves by name, of which one is asked for.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import suggestion
from workers.analysis.threshold.bounds import NAMES, Bound, Bounds
from workers.analysis.threshold.curve import FEWEST_POINTS, MOST_POINTS, Curve
from workers.analysis.threshold.publication import Publication

_POINTS = ("points", "data")
_FIELDS = (*_POINTS, "bounds", "dense", "params", "published_log_sse")
# What collections of published curves tell beside: taken, and not used.
_ASIDE = ("figure", "star", "published_point_is_the_optimum_under_these_bounds")
_EXAMPLE = '{"points": [[0.1, 5.14], [0.2, 5.23], …], "bounds": {"b": [0, null]}}'
_INSTEAD = f"Write it as {_EXAMPLE}"


@dataclass(frozen=True)
class ThresholdRequest:
    """What is to be fitted."""

    curve: Curve
    bounds: Bounds
    dense: float | None
    publication: Publication | None = None


def parse_request(text: str, name: str | None = None) -> ThresholdRequest:
    """The request; `name` is that of a curve where the file holds several.

    Raises HemostatError (INVALID_REQUEST) with the JSON pointer of the first fault.
    """
    data = _parse(text)
    if not isinstance(data, dict):
        _refuse(f"The file holds {_kind(data)}, not an object.", "", f"Write an object, for example {_EXAMPLE}")
    name = _chosen(data, name)
    if name is None:
        return _request(data)
    try:
        return _request(data[name])
    except HemostatError as error:
        pointer = f"/{_escaped(name)}{error.pointer or ''}"
        raise HemostatError(error.code, error.detail, hint=error.hint, pointer=pointer) from None


def _request(data: dict[str, Any]) -> ThresholdRequest:
    _known({key: value for key, value in data.items() if key not in _ASIDE}, _FIELDS, "")
    curve = _curve(data)
    bounds = _bounds(data.get("bounds"))
    try:
        bounds.knee_range(curve)
    except ValueError as error:
        _refuse(f"{error}.", "/bounds/s0", "Give bounds of s0 that overlap the measured range.")
    dense = data.get("dense")
    if dense is not None:
        dense = _perplexity(dense, "/dense")
    published = _publication(data)
    if published is not None and not math.isfinite(published.log_sse(curve)):
        _refuse("The form is not finite on the curve with these coefficients.", "/params", "Give them as published.")
    return ThresholdRequest(curve, bounds, dense, published)


def _chosen(data: dict[str, Any], name: str | None) -> str | None:
    """The name of the curve that is meant, where the file holds curves by name; None if it is a curve itself."""
    named = {key: one for key, one in data.items() if isinstance(one, dict) and any(field in one for field in _POINTS)}
    if not named or any(field in data for field in _POINTS):
        if name is not None:
            _refuse("The file has one curve, without a name.", "", "Leave out --curve.")
        return None
    for key in data:
        if key not in named:
            _refuse(
                f"The entry {key[:64]!a} of the file is not a curve, but others are.",
                "",
                "A file of several curves has only names, each with the points of one curve.",
            )
    if name is None and len(data) == 1:
        return next(iter(data))
    if name not in data:
        told = f"{len(data)} curves" if name is None else f"no curve {name[:64]!a}"
        _refuse(f"The file holds {told}.", "", f"Choose one with --curve: {', '.join(data)}")
    return name


def _publication(data: dict[str, Any]) -> Publication | None:
    params, stated = data.get("params"), data.get("published_log_sse")
    if params is None:
        if stated is not None:
            _refuse(
                "The file has a published log SSE without its coefficients.",
                "/published_log_sse",
                "Give them as params, or leave it out.",
            )
        return None
    if not isinstance(params, dict):
        _refuse(f"params is {_kind(params)}, not an object.", "/params", "Write them by name: a, b, s0, k1 and k2.")
    _known(params, NAMES, "/params")
    for name in NAMES:
        if name not in params:
            _refuse(
                f"params has no {name}.", f"/params/{name}", "Give all of a, b, s0, k1 and k2, or leave params out."
            )
    values = {name: _number(params[name], f"/params/{name}") for name in NAMES}
    for name in ("a", "s0"):
        if values[name] <= 0:
            _refuse(
                f"{name} is positive, not {values[name]:g}.",
                f"/params/{name}",
                "Give it as published, not its logarithm.",
            )
    if stated is not None:
        stated = _number(stated, "/published_log_sse")
        if stated < 0:
            _refuse(
                f"A sum of squares is not negative, as {stated:g} is.",
                "/published_log_sse",
                "Give the sum of squared residuals of ln perplexity, or leave it out.",
            )
    return Publication(**values, stated_log_sse=stated)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        _refuse(f"The file is not JSON: {error.msg}, line {error.lineno} column {error.colno}.", "", _INSTEAD)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        _refuse(f"The file is not JSON that can be read: {reason}.", "", _INSTEAD)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object names {twice[:64]!a} twice")
    return made


def _curve(data: dict[str, Any]) -> Curve:
    field = "data" if "data" in data else "points"
    if all(name in data for name in _POINTS):
        _refuse("The file has both `points` and `data`, which mean the same.", "/data", "Keep one of them.")
    points, pointer = data.get(field), f"/{field}"
    if points is None:
        missing = "missing" if field not in data else "null"
        _refuse(f"The field {field!r} is {missing}.", pointer, f"Give it, for example {_EXAMPLE}")
    if not isinstance(points, list):
        _refuse(f"{field} is {_kind(points)}, not a list.", pointer, f"Write a list of pairs, for example {_EXAMPLE}")
    if len(points) < FEWEST_POINTS:
        _refuse(
            f"{len(points)} points are given; a curve needs at least {FEWEST_POINTS}.",
            pointer,
            "The published form has five coefficients; give 10 or more to find its knee.",
        )
    if len(points) > MOST_POINTS:
        _refuse(f"{len(points)} points are given; at most {MOST_POINTS} are allowed.", pointer, "Leave some out.")
    seen: dict[float, int] = {}
    values = []
    for index, point in enumerate(points):
        if not isinstance(point, list) or len(point) != 2:
            what = f"a list of {len(point)}" if isinstance(point, list) else _kind(point)
            _refuse(
                f"Point {index + 1} is {what}, not a pair [s, perplexity].",
                f"{pointer}/{index}",
                "Write it as [0.1, 5.14].",
            )
        s = _number(point[0], f"{pointer}/{index}/0")
        if not 0 < s <= 1:
            hint = "s is the share removed, above 0 and at most 1."
            if s == 0:
                hint += ' The form goes to 0 there; give the unmodified model\'s perplexity as "dense".'
            elif 1 < s <= 100:
                hint += " Is it a percentage?"
            _refuse(f"s of point {index + 1} is {s:g}, outside (0, 1].", f"{pointer}/{index}/0", hint)
        if s in seen:
            _refuse(
                f"Points {seen[s] + 1} and {index + 1} have the same s, {s:g}.",
                f"{pointer}/{index}/0",
                "Give each s once; average repeated measurements.",
            )
        seen[s] = index
        values.append(_perplexity(point[1], f"{pointer}/{index}/1"))
    return Curve.of(list(seen), values)


def _bounds(data: Any) -> Bounds:
    if data is None:
        return Bounds()
    if not isinstance(data, dict):
        _refuse(
            f"bounds is {_kind(data)}, not an object.", "/bounds", 'Write them by name, for example {"b": [0, null]}'
        )
    _known(data, NAMES, "/bounds")
    made: dict[str, Bound] = {}
    for name, pair in data.items():
        pointer = f"/bounds/{name}"
        if pair is None:
            continue
        if not isinstance(pair, list) or len(pair) != 2:
            _refuse(
                f"The bounds of {name} are not a pair [low, high].",
                pointer,
                "Write two numbers; null is open: [0, null]",
            )
        low, high = (None if side is None else _number(side, f"{pointer}/{at}") for at, side in enumerate(pair))
        if low is not None and high is not None and low > high:
            _refuse(f"The lower bound of {name}, {low:g}, is above the upper, {high:g}.", pointer, "Swap them.")
        if name == "a" and high is not None and high <= 0:
            _refuse(
                f"The upper bound of a is {high:g}, and a is positive.",
                f"{pointer}/1",
                "Raise it above 0, or write null.",
            )
        made[name] = (low, high)
    return Bounds(**made)


def _known(data: dict[str, Any], names: tuple[str, ...], pointer: str) -> None:
    for name in data:
        if name not in names:
            _refuse(f"There is no field {name[:64]!a}.", f"{pointer}/{_escaped(name)}", suggestion(name, names))


def _escaped(name: str) -> str:
    return name.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")


def _number(value: Any, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"A number is needed, not {_kind(value)}.", pointer, "Write a number, without quotation marks.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _refuse(f"{number} is not a finite number.", pointer, "Leave out points that could not be measured.")
    return number


def _perplexity(value: Any, pointer: str) -> float:
    number = _number(value, pointer)
    if number <= 0:
        hint = "Give the perplexity itself, not a change or a logarithm of it, or leave it out."
        _refuse(f"A perplexity is positive, not {number:g}.", pointer, hint)
    return number


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names[type(value)]


def _refuse(detail: str, pointer: str, hint: str) -> NoReturn:
    raise HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint, pointer=pointer)
