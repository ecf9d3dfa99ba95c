"""Knobs of a recipe: found where a request writes `{"sweep": …}`, checked value by value, and turned.

Works on any number of knobs; a kind of job says how many it takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, NoReturn

import annotated_types
from pydantic import TypeAdapter, ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import FEWEST_VALUES, MOST_VALUES, Knob
from app.kinds.kind import Kind
from app.models.nearest import listed, meant
from app.recipes.recipe import STEPS, Recipe, RecipeStep

WORD: Final = "sweep"
POINTER: Final = "/candidate/recipe"
_GRID: Final = ("from", "to", "points")
_EXAMPLES: Final = 'write {"sweep": [0.1, 0.2]} or {"sweep": {"from": 0.1, "to": 0.8, "points": 8}}'
_SHOWN: Final = 64
_LARGEST: Final = 1e15
_COUNTS: Final = ("no knob", "one knob", "two knobs")
# Fields that say what a step is, not how strong.
_NO_KNOBS: Final = frozenset({"type", "calibration"})
_STEP: Final[TypeAdapter[Any]] = TypeAdapter(RecipeStep)
# A request as data: each value with the JSON pointer of where it was written.
Json = dict[str, Any]


def lift(data: Json, *, most: int = 1, instead: str = "") -> Json:
    """The request with its knobs taken out of the candidate's recipe into `knobs`, each value checked; `data` itself
    where the recipe has none.

    `most` is how many knobs the kind takes, `instead` the kind that takes more. Raises `HemostatError` with the pointer
    of what is wrong with a knob: INVALID_REQUEST, UNKNOWN_FIELD.
    """
    candidate = data.get("candidate")
    if not isinstance(candidate, dict) or not isinstance(candidate.get("recipe"), list | tuple):
        return data
    steps: Sequence[Any] = candidate["recipe"]
    knobs: list[Json] = []
    ranged: list[bool] = []
    plain: list[Any] = []
    for index, step in enumerate(steps):
        kept = dict(step) if isinstance(step, dict) else step
        for field, written in step.items() if isinstance(step, dict) else ():
            if isinstance(written, dict) and WORD in written and field not in _NO_KNOBS:
                values = _values(step, field, written, f"{POINTER}/{index}/{field}")
                knobs.append({"step": index, "field": field, "values": values})
                ranged.append(isinstance(written[WORD], dict))
                kept[field] = values[0]
        plain.append(kept)
    if not knobs:
        return data
    if "knobs" in data:
        _refuse("the knobs are given in the recipe and again in `knobs`", "/knobs", "leave one of them out")
    if len(knobs) > most:
        extra = knobs[most]
        _refuse(
            f"{len(knobs)} values of the recipe are swept; this kind turns {most}",
            f"{POINTER}/{extra['step']}/{extra['field']}",
            instead or "give the others one value",
        )
    for knob, is_range in zip(knobs, ranged, strict=True):
        at = f"{POINTER}/{knob['step']}/{knob['field']}"
        _check_values(plain, knob["step"], knob["field"], knob["values"], at, ranged=is_range)
    return data | {"candidate": candidate | {"recipe": tuple(plain)}, "knobs": tuple(knobs)}


def recipe_at(recipe: Recipe, knobs: Sequence[Knob], values: Sequence[Any]) -> Recipe:
    """The recipe with each knob at its value. Raises pydantic's ValidationError for one that its step cannot take, and
    IndexError for a step that the recipe has not."""
    steps = [dict(step) for step in recipe]
    for knob, value in zip(knobs, values, strict=True):
        steps[knob.step][knob.field] = _frozen(value)
    return tuple(type(step).model_validate(turned, strict=True) for step, turned in zip(recipe, steps, strict=True))


def without(recipe: Recipe, steps: Sequence[int]) -> Recipe:
    """The recipe with these steps left out: what a knob does when it is not turned at all."""
    return tuple(step for index, step in enumerate(recipe) if index not in set(steps))


def _miscounted(kind: Kind, given: int) -> tuple[str, str]:
    """(detail, hint) for a request of a kind that turns knobs in which another number of knobs is `given`."""
    turned = f"a {kind.name} turns {_COUNTS[kind.knobs]}"
    if not given:
        values = "one value" if kind.knobs == 1 else "two values"
        return f"{turned}, and none is given", f"in place of {values} of the candidate's recipe {_EXAMPLES}"
    held = _COUNTS[given] if given < len(_COUNTS) else f"{given} knobs"
    hint = kind.fewer_knobs if given < kind.knobs else kind.more_knobs
    return f"{turned}, and {held} {'is' if given == 1 else 'are'} given", hint


def grid(knobs: Sequence[Knob]) -> Iterator[tuple[Any, ...]]:
    """Every combination of the knobs' values; the last knob turns fastest."""
    return product(*(knob.values for knob in knobs))


def check_knobs(recipe: Recipe, knobs: Sequence[Knob], check: Callable[[Recipe], object]) -> None:
    """Refuses what one of the knobs' values makes of the recipe: against the contract of its step, and by `check`,
    which raises `HemostatError`, against the checkpoint. Each knob is turned alone, the others at their first value.

    The pointer is that of the value as the recipe would hold it, or `/knobs` for a knob that the recipe has not.
    """
    first = [knob.values[0] for knob in knobs]
    steps = [dict(step) for step in recipe]
    for number, knob in enumerate(knobs):
        if knob.step >= len(recipe):
            _refuse(
                f"the recipe has {len(recipe)} step{'' if len(recipe) == 1 else 's'}, and none of number {knob.step}",
                f"/knobs/{number}/step",
                f"the JSON field `step` counts from 0: give 0 to {len(recipe) - 1}",
            )
        _known_field(steps[knob.step], knob.field, f"/knobs/{number}/field")
        at = f"{POINTER}/{knob.step}/{knob.field}"
        _check_values(steps, knob.step, knob.field, knob.values, at)
        for index, value in enumerate(knob.values):
            values = [*first[:number], value, *first[number + 1 :]]
            try:
                check(recipe_at(recipe, knobs, values))
            except HemostatError as error:
                detail = f"at {knob.field} = {told(value)}: {error.detail}"
                hint = either(error.hint, f"sweep {knob.field} without {told(value)}")
                raise HemostatError(error.code, detail, hint=hint, pointer=f"{at}/{WORD}/{index}") from error
            except ValidationError as error:
                hint = f"sweep {knob.field} without {told(value)}, or change the step's other fields"
                _refuse(f"at {knob.field} = {told(value)}: {_why(error)}", f"{at}/{WORD}/{index}", hint)


def either(hint: str, other: str) -> str:
    """What to do, or something else."""
    return f"{hint.removesuffix('.')}; or {other}" if hint else other


def told(value: Any) -> str:
    """A knob's value in words."""
    if isinstance(value, bool | type(None)):
        return json.dumps(value)
    if isinstance(value, int | float) and not abs(value) > _LARGEST:
        return f"{value:.6g}"
    text = ", ".join(map(told, value[:_SHOWN])) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


# --- what is written


def _values(step: Mapping[str, Any], field: str, written: Mapping[str, Any], pointer: str) -> Sequence[Any]:
    """The values of `{"sweep": …}`."""
    _known_field(step, field, pointer)
    if len(written) > 1:
        other = next(name for name in written if name != WORD)
        _refuse(f"there is no field {other[:64]!a} beside {WORD}", f"{pointer}/{other}", _EXAMPLES)
    asked, at = written[WORD], f"{pointer}/{WORD}"
    if isinstance(asked, dict):
        asked = _spaced(asked, at, whole=_is_whole(step, field))
    if not isinstance(asked, list | tuple):
        _refuse(f"{WORD} is neither a list of values nor a range", at, _EXAMPLES)
    if len(asked) < FEWEST_VALUES:
        _refuse(f"a sweep over {len(asked)} value{'' if len(asked) == 1 else 's'} shows no curve", at, _EXAMPLES)
    if len(asked) > MOST_VALUES:
        _refuse(f"{len(asked)} values; at most {MOST_VALUES} are taken", at, "leave some out")
    return tuple(asked)


def _spaced(asked: Mapping[str, Any], pointer: str, *, whole: bool) -> Sequence[Any]:
    """Evenly spaced values, both ends included; of a field of whole numbers rounded."""
    for name in asked:
        if name not in _GRID:
            _refuse(f"there is no field {name[:64]!a} in a range", f"{pointer}/{name}", _EXAMPLES)
    for name in _GRID:
        if name not in asked:
            _refuse(f"the range has no {name!r}", f"{pointer}/{name}", _EXAMPLES)
        value = asked[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            _refuse(f"{name} is not a number", f"{pointer}/{name}", _EXAMPLES)
    low, high, points = asked["from"], asked["to"], asked["points"]
    if not isinstance(points, int) or not FEWEST_VALUES <= points <= MOST_VALUES:
        _refuse(
            f"points is {points}, not a whole number from {FEWEST_VALUES} to {MOST_VALUES}",
            f"{pointer}/points",
            _EXAMPLES,
        )
    if low == high:
        _refuse("the range starts and ends at the same value", f"{pointer}/to", _EXAMPLES)
    if whole:
        for name in ("from", "to"):
            if asked[name] != int(asked[name]):
                _refuse(
                    f"{name} is {asked[name]}, and the field takes whole numbers",
                    f"{pointer}/{name}",
                    "give whole numbers as ends",
                )
        most = abs(int(high) - int(low)) + 1
        if points > most:
            _refuse(
                f"there are {most} whole numbers from {low} to {high}, and {points} points are asked for",
                f"{pointer}/points",
                f"give at most {most}",
            )
        return tuple(round(low + (high - low) * index / (points - 1)) for index in range(points))
    # Twelve digits: what is written as 0.1 is 0.1 and not 0.1 + 1e-17.
    return tuple(float(f"{low + (high - low) * index / (points - 1):.12g}") for index in range(points))


def _known_field(step: Mapping[str, Any], field: str, pointer: str) -> None:
    kind = step.get("type")
    known = STEPS.get(kind) if isinstance(kind, str) else None
    if known is None:
        return  # the type itself is refused elsewhere
    names = sorted(set(known.model_fields) - _NO_KNOBS)
    if field not in names:
        near = meant(field, names)
        detail = f"{kind} has no knob {field[:64]!a}" + (f"; {near}" if near else "")
        raise HemostatError(ErrorCode.UNKNOWN_FIELD, detail, hint=listed(names, many=24), pointer=pointer)


def _is_whole(step: Mapping[str, Any], field: str) -> bool:
    """Whether the field takes whole numbers and no others."""
    kind = step.get("type")
    known = STEPS.get(kind) if isinstance(kind, str) else None
    found = None if known is None else known.model_fields.get(field)
    kinds = _scalars(found.annotation) if found is not None else set()
    return int in kinds and float not in kinds


def _scalars(annotation: Any) -> set[type]:
    arguments = [
        part for part in getattr(annotation, "__args__", ()) if not isinstance(part, annotated_types.BaseMetadata)
    ]
    if not arguments:
        return {annotation} if isinstance(annotation, type) else set()
    return set().union(*(_scalars(part) for part in arguments))


def _check_values(
    steps: Sequence[Any], index: int, field: str, values: Sequence[Any], pointer: str, *, ranged: bool = False
) -> None:
    """Each value against the contract of the step; what is wrong with the step whatever the value is reported
    elsewhere.

    `ranged`: the values are those of a range, whose writer never saw them.
    """
    seen: dict[str, int] = {}
    for number, value in enumerate(values):
        at = f"{pointer}/{WORD}/{number}"
        # 1 and 1.0 are one setting.
        same = int(value) if isinstance(value, float) and value.is_integer() else value
        name = json.dumps(same, sort_keys=True)
        if name in seen:
            _refuse(
                f"{field} = {told(value)} {'comes' if ranged else 'is given'} twice, as values {seen[name] + 1} and "
                f"{number + 1} of {len(values)}",
                at,
                "ask for fewer points, or a wider range" if ranged else "give each value once",
            )
        seen[name] = number
        why = _fault(steps[index], field, value)
        if why is not None:
            which = f" (value {number + 1} of {len(values)} in the range)" if ranged else ""
            hint = f"leave {told(value)} out, or give values of {field} that the step takes without a sweep"
            _refuse(f"{field} = {told(value)} is not taken{which}: {why}", at, hint)


def _fault(step: Mapping[str, Any], field: str, value: Any) -> str | None:
    """What is wrong with a value of a field, whatever else is wrong with the step; None if nothing is."""
    try:
        _read(dict(step) | {field: value})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        own = [fault for fault in faults if field in fault["loc"] or fault["type"] in ("rule", "value_error")]
        if own:
            why = own[0]["msg"].removeprefix("Value error, ")
            return f"{why[:1].lower()}{why[1:]}"
    return None


def _why(error: ValidationError) -> str:
    return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")


def _read(step: Mapping[str, Any]) -> None:
    """Raises ValidationError for a step that is not one; of its text, which may be long, nothing depends on a knob."""
    _STEP.validate_python({name: _frozen(step[name]) for name in step if name != "calibration"}, strict=True)


def _frozen(value: Any) -> Any:
    """For strict reading, which takes no list for a tuple."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _refuse(detail: str, pointer: str, hint: str) -> NoReturn:
    raise HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint, pointer=pointer)


def lift_knobs(data: Json, kind: Kind) -> Json:
    """`lift`, by as many knobs as the request's kind takes; requests without any are left as they are.

    Raises what `lift` raises, and INVALID_REQUEST for a sweep in a kind that turns no knob, and for too few.
    """
    if not kind.knobs:
        _refuse_any(data, kind.name)
        return data
    found = lift(data, most=kind.knobs, instead=kind.more_knobs)
    knobs = found.get("knobs", ())
    if found is not data and len(knobs) < kind.knobs:
        at = f"{POINTER}/{knobs[0]['step']}/{knobs[0]['field']}"
        _refuse(f"one value of the recipe is swept; a {kind.name} turns {_COUNTS[kind.knobs]}", at, kind.fewer_knobs)
    if isinstance(knobs, list | tuple) and len(knobs) != kind.knobs:
        detail, hint = _miscounted(kind, len(knobs))
        _refuse(detail, "/knobs", hint)
    return found


def _refuse_any(data: Json, kind: str) -> None:
    candidate = data.get("candidate")
    steps = candidate.get("recipe") if isinstance(candidate, dict) else None
    for index, step in enumerate(steps if isinstance(steps, list | tuple) else ()):
        for field, written in step.items() if isinstance(step, dict) else ():
            if isinstance(written, dict) and WORD in written and field not in _NO_KNOBS:
                _refuse(
                    f"a {kind} job turns no knob: {field} takes one value",
                    f"{POINTER}/{index}/{field}",
                    "send it as kind sweep, or give one value",
                )
