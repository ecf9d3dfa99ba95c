"""The options of a kind's command: made from the fields of its request, read forwards and written backwards.

Defaults are the contract's: an option that is not given sends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from app.commands.shapes import SHAPES, Shape, numeral
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.option import Option
from app.contracts.request import JobRequest

Json = dict[str, Any]
_PLAIN: Final = (bool, int, float, str)
# The models have arguments of their own; the values of knobs are written into the recipe.
_APART: Final = frozenset({"kind", "reference", "candidate", "knobs", "dry_run"})


@dataclass(frozen=True)
class Written:
    """One option. `path`: of its field in the request. `type`: of a value. `default`: the contract's, as JSON.
    `repeated`: the option may be given more than once."""

    flag: str
    path: tuple[str, ...]
    type: type
    default: Any
    help: str
    shape: Shape | None = None
    sets: Any = None
    repeated: bool = False

    @property
    def switch(self) -> bool:
        """Whether the option takes no value, and there is none for the opposite."""
        return self.sets is not None or (self.type is bool and self.default is False)

    @property
    def name(self) -> str:
        """The name of the parameter that takes it."""
        return self.flag.removeprefix("--").replace("-", "_")

    def read(self, given: Any) -> Any:
        """The field's value of what the option was given. Raises INVALID_REQUEST."""
        if self.sets is not None:
            return self.sets
        if self.shape is None:
            return given
        return self.shape.read(given if self.repeated else [given], self.flag)

    def write(self, value: Any) -> list[str] | None:
        """The words of a command line that set the value; None if the option cannot."""
        if self.sets is not None:
            return [self.flag] if value == self.sets else None
        if self.type is bool and self.shape is None:
            return [self.flag if value else f"--no-{self.flag.removeprefix('--')}"]
        words = self.shape.write(value) if self.shape else self._plain_words(value)
        return None if words is None else [word for one in words for word in (self.flag, one)]

    def _plain_words(self, value: Any) -> list[str]:
        return [one if isinstance(one, str) else numeral(one) for one in (value if self.repeated else [value])]


@cache
def options_of(request: type[JobRequest]) -> tuple[Written, ...]:
    """All options of a kind, in the order of its fields: its own first."""
    shared = set(JobRequest.model_fields)
    found = list(_options(request, ()))
    return tuple(sorted(found, key=lambda option: option.path[0] in shared))


def request_of(request: type[JobRequest], given: Mapping[str, Any]) -> Json:
    """The fields that the options of a command give, by the names of their parameters. Raises INVALID_REQUEST."""
    found: Json = {}
    for option in options_of(request):
        value = given.get(option.name)
        if value is not None and value != [] and not (option.switch and not value):
            _put(found, option.path, option.read(value))
    return found


def with_fields(request: Json, words: list[str]) -> Json:
    """The request with each `FIELD=JSON`. Raises INVALID_REQUEST."""
    for word in words:
        field, equals, value = word.partition("=")
        try:
            parsed = json.loads(value)
        except ValueError:
            equals = ""
        if not equals:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST, f"--set {word!r} is not FIELD=JSON", hint="for example: --set window=128"
            )
        if field in request:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST, f"{field} is given twice: by --set and by an option", hint="leave one out"
            )
        request = request | {field: parsed}
    return request


def words_of(request: type[JobRequest], body: Mapping[str, Any]) -> list[list[str]]:
    """The options that ask for what a request of JSON holds beside its models, each as its words. What has its default
    is left out; what no option can say is written as `--set FIELD=JSON`."""
    found: list[list[str]] = []
    left = {name: value for name, value in body.items() if name not in _APART | _unused(request)}
    for option in options_of(request):
        value = _at(left, option.path)
        words = [] if value is None or value == option.default else option.write(value)
        if words is not None:
            _drop(left, option.path)
            found += [words[at : at + 2] for at in range(0, len(words), 2)]
    defaults = _defaults(request)
    for name, value in left.items():
        if value is not None and value != {} and value != defaults.get(name):
            found.append(["--set", f"{name}={json.dumps(value)}"])
    return found


def _options(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[Written]:
    defaults = _defaults(model)
    for name, field in model.model_fields.items():
        option = next((one for one in field.metadata if isinstance(one, Option)), Option())
        if option.hidden or (not above and name in _APART):
            continue
        kind = _bare(field.annotation)
        if not option.shape and option.sets is None and isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _options(kind, (*above, name))
            continue
        made = _option(name, field, option, kind, defaults.get(name))
        if made is not None:
            yield replace(made, path=(*above, name))


def _option(name: str, field: FieldInfo, option: Option, kind: Any, default: Any) -> Written | None:
    """None for a field that has neither a plain type nor a notation: only `--set` sets it."""
    flag = option.flag or f"--{name.replace('_', '-')}"
    told = option.help or field.description or ""
    if option.sets is not None:
        sets = _adapter(field).validate_python(option.sets)
        return Written(flag, (), bool, default, _help(told), sets=_json(field, sets))
    if option.shape:
        shape = SHAPES[option.shape]
        return Written(flag, (), str, default, _help(told, f"Write {shape.help}"), shape=shape, repeated=shape.repeated)
    repeated = get_origin(kind) is tuple
    kind = _bare(get_args(kind)[0]) if repeated else kind
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    kind = str if choices else kind
    if kind not in _PLAIN:
        return None
    notes = [f"one of {', '.join(choices)}"] if choices else []
    notes += ["repeated for more"] if repeated else []
    if isinstance(default, int | float | str) and not isinstance(default, bool):
        notes.append(f"default: {default}")
    return Written(flag, (), kind, default, _help(told, "; ".join(notes)), repeated=repeated)


def _help(*parts: str) -> str:
    return " ".join(f"{part[0].upper()}{part[1:].rstrip('.')}." for part in parts if part)


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and without `| None`; a union stays as it is."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        inner = [one for one in get_args(annotation) if one is not NoneType]
        if get_origin(annotation) in (Union, UnionType) and len(inner) == 1:
            annotation = inner[0]
            continue
        return annotation


@cache
def _defaults(model: type[BaseModel]) -> Json:
    return {
        name: _json(field, field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
        if not field.is_required() and name not in _APART
    }


def _json(field: FieldInfo, value: Any) -> Any:
    return _adapter(field).dump_python(value, mode="json")


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = field.annotation
    return TypeAdapter(annotation)


def _unused(request: type[JobRequest]) -> set[str]:
    """Fields that the kind does not use."""
    return {
        name
        for name, field in request.model_fields.items()
        if any(isinstance(one, Option) and one.hidden for one in field.metadata)
    }


def _put(body: Json, path: tuple[str, ...], value: Any) -> None:
    *above, last = path
    for name in above:
        body = body.setdefault(name, {})
    body[last] = value


def _at(body: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = body
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _drop(body: Json, path: tuple[str, ...]) -> None:
    """Takes the value out of copies: what is left is what no option says."""
    first, *rest = path
    if not rest:
        body.pop(first, None)
    elif isinstance(body.get(first), dict):
        body[first] = dict(body[first])
        _drop(body[first], tuple(rest))
