"""Rows as the harness takes them: a table in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workers.answering.harness.definition import Refusal


def table(rows: Sequence[Mapping[str, Any]], path: str, refusal: Refusal, field: str) -> Any:
    """`datasets.Dataset` of the rows.

    Raises TASK_INVALID for a row that lacks a field that others have, at any depth, or holds null in a list: the
    harness would ask about "None". Raises it also if values of a field are of several types.
    """
    import datasets

    datasets.disable_progress_bars()
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
    try:
        made = datasets.Dataset.from_list([{name: row.get(name) for name in names} for row in rows])
    except Exception as error:  # pyarrow's own kinds
        raise refusal(
            f"{path}: the items do not become a table ({type(error).__name__})",
            "each field must hold values of one type in all items",
            field,
        ) from error
    for number, row in enumerate(made, 1):
        lacking = next((name for name in names if _hollow(row[name])), None)
        if lacking is not None:
            raise refusal(
                f"{path}, item {number}: the field {lacking} is missing, or null in it",
                "give the field, or take the item out; test splits are often published without answers",
                field,
            )
    return made


def _hollow(value: object) -> bool:
    """Whether it is null, or holds null at any depth."""
    if isinstance(value, Mapping):
        return any(map(_hollow, value.values()))
    return value is None or (isinstance(value, list) and any(map(_hollow, value)))
