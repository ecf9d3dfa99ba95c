"""Rows as the harness takes them: a table in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workers.answering.harness.definition import Refusal


def table(rows: Sequence[Mapping[str, Any]], path: str, refusal: Refusal, field: str) -> Any:
    """`datasets.Dataset` of the rows.

    Raises TASK_INVALID where one lacks a field that others have, at any depth, or has null in a list (the harness would
    ask about "None"), and where values of a field are of several types.
    """
    import datasets

    datasets.disable_progress_bars()
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
    kinds = {name: type(next(row[name] for row in rows if row.get(name) is not None)) for name in names}
    nested = {name: tuple(_fields(rows, name)) for name in names if kinds[name] is dict}
    for number, row in enumerate(rows, 1):
        where = f"{path}, item {number}"
        lacking = next((name for name in names if row.get(name) is None), None) or _lacking_inside(row, nested)
        if lacking is not None:
            raise refusal(
                f"{where}: the field {lacking} is missing or null, and others have it",
                "give the field, or take the item out; test splits are often published without answers",
                field,
            )
        hollow = next((name for name in names if _hollow(row[name])), None)
        if hollow is not None:
            raise refusal(
                f"{where}: a list in the field {hollow} holds null",
                "give the text, or take the item out",
                field,
            )
        other = next((name for name in names if type(row[name]) is not kinds[name]), None)
        if other is not None:
            raise refusal(
                f"{where}: the field {other} is of another type than in the items before",
                "each field must hold values of one type: text in all items, or numbers in all",
                field,
            )
    try:
        return datasets.Dataset.from_list([{name: row[name] for name in names} for row in rows])
    except Exception as error:  # pyarrow's own kinds
        raise refusal(
            f"{path}: the items do not become a table ({type(error).__name__})",
            "lists and objects in a field must be alike in all items",
            field,
        ) from error


def _fields(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """What any row has, not null, in a field that is an object."""
    objects = [row[name] for row in rows if isinstance(row.get(name), dict)]
    return list(dict.fromkeys(key for one in objects for key, value in one.items() if value is not None))


def _lacking_inside(row: Mapping[str, Any], nested: Mapping[str, Sequence[str]]) -> str | None:
    """The first field of an object that others have and this one lacks, as `field.name`."""
    objects = {name: row[name] for name in nested if isinstance(row[name], dict)}
    return next(
        (f"{name}.{key}" for name, one in objects.items() for key in nested[name] if one.get(key) is None), None
    )


def _hollow(value: object) -> bool:
    """Whether a list in it, at any depth, holds null."""
    if isinstance(value, Mapping):
        return any(map(_hollow, value.values()))
    return isinstance(value, list) and any(one is None or _hollow(one) for one in value)
