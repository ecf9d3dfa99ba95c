"""Tasks as they are written on a command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import suggestion

Json = dict[str, Any]
_NUMBERS: Final = {"items", "shots", "max_tokens"}
_FIELDS: Final = ("name", "items", "shots", "examples", "metric", "max_tokens", "passage")


def parse_task(written: str) -> dict[str, Any]:
    """`shipped`, `shipped:60`, `FORMAT:PATH,key=value,…`, or `harness:TASK:PATH,key=value,…`. Raises
    INVALID_REQUEST."""
    form, _, rest = written.partition(":")
    if form == "shipped":
        return {"source": "shipped"} | ({"items": _whole("items", rest, written)} if rest else {})
    parsed: dict[str, Any] = {"source": "file", "format": form}
    fields: tuple[str, ...] = _FIELDS
    if form == "harness":
        task, _, rest = rest.partition(":")
        parsed = {"source": "harness", "task": task}
        fields = (*_FIELDS, "filter")
    parsed["path"], *options = rest.split(",")
    if not parsed["path"]:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--task {written!r} is not shipped, FORMAT:PATH or harness:TASK:PATH",
            hint="for example: --task hellaswag:hellaswag_val.jsonl,items=500 or --task harness:piqa:piqa_val.jsonl",
        )
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--task {written!r}: {option!r} is not key=value with a key of {', '.join(fields)}",
                hint="a path with a comma cannot be given here: send the job over HTTP",
            )
        if key not in fields:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--task {written!r}: there is no key {key!r}",
                hint=suggestion(key, fields),
            )
        parsed[key] = _whole(key, value, written) if key in _NUMBERS else value
    return parsed


def _whole(key: str, value: str, written: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--task {written!r}: {key} is {value!r}, not a whole number",
            hint="for example: shipped:50, or arc:FILE,items=200",
        ) from None


def task_word(task: Mapping[str, Any]) -> str | None:
    """A task as `parse_task` takes it; None if a comma in it has no place there."""
    given = {key: value for key, value in task.items() if value is not None}
    source = given.pop("source", None)
    if source == "shipped":
        return f"shipped:{given['items']}" if "items" in given else "shipped"
    form = f"harness:{given.pop('task', '')}" if source == "harness" else given.pop("format", "")
    words = [f"{form}:{given.pop('path', '')}", *(f"{key}={value}" for key, value in given.items())]
    return None if any("," in word for word in words) else ",".join(words)
