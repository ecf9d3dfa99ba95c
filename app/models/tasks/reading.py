"""Task files, from disk to items."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.task import MAX_ITEMS, METRICS, FileTask, ShippedTask, TaskFormat, TaskMetric
from app.models.tasks.formats import ANSWER, FIELDS, READERS
from app.models.tasks.items import Item, with_examples
from app.models.tasks.rows import complainer, locate, rows, text_of
from app.settings import Settings

SHIPPED: Final = Path(__file__).resolve().parents[3] / "workers" / "text" / "data" / "tasks_example.jsonl"
_SHIPPED_FORMAT: Final = "hellaswag"
T = TypeVar("T")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")


def format_of(task: ShippedTask | FileTask) -> TaskFormat:
    """The fields that its items have."""
    return _SHIPPED_FORMAT if isinstance(task, ShippedTask) else task.format


def metric_of(task: ShippedTask | FileTask) -> TaskMetric:
    """What decides whether an item is answered rightly."""
    chosen = None if isinstance(task, ShippedTask) else task.metric
    return chosen or METRICS[format_of(task)][0]


def read_task(task: ShippedTask | FileTask, settings: Settings, *, seed: int, pointer: str) -> list[Item]:
    """The items of a task, drawn by `seed` where the task asks for a part of them; solved examples stand before each.

    Raises PATH_FORBIDDEN, TEXT_NOT_FOUND, and TASK_INVALID, with file and line, for a file that is not what its format
    says: fields missing, no answer, an empty prompt. Its content is not in the message.
    """
    items = draw(_all_items(task, settings, pointer=pointer), task.items, seed=seed, pointer=pointer)
    if isinstance(task, ShippedTask) or task.examples is None:
        return items
    examples = _examples(task, task.examples, settings, pointer=pointer)
    shown = {(example.prompt, example.choices) for example in examples}
    if any((item.prompt, item.choices) in shown for item in items):
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"an item of {task.path} is among the {task.shots} solved examples",
            hint="take the examples from another split: otherwise the model sees the answer",
            pointer=f"{pointer}/examples",
        )
    return with_examples(items, examples)


def read_source(task: ShippedTask | FileTask, settings: Settings, *, pointer: str) -> list[Item]:
    """Every item that the task draws from, however many it asks for, with the solved examples before each: the same
    for all draws from one source. Raises what `read_task` raises for the files."""
    items = _all_items(task, settings, pointer=pointer)
    if isinstance(task, ShippedTask) or task.examples is None:
        return items
    return with_examples(items, _examples(task, task.examples, settings, pointer=pointer))


def _all_items(task: ShippedTask | FileTask, settings: Settings, *, pointer: str) -> list[Item]:
    if isinstance(task, ShippedTask):
        return read_file(SHIPPED, _SHIPPED_FORMAT, name=SHIPPED.name, pointer=pointer)
    file = locate(task.path, settings, pointer=f"{pointer}/path")
    return read_file(file, task.format, name=task.path, pointer=f"{pointer}/path", passage=task.passage)


def _examples(task: FileTask, path: str, settings: Settings, *, pointer: str) -> list[Item]:
    """Those that are shown solved. Raises TASK_INVALID if the file holds too few."""
    file = locate(path, settings, pointer=f"{pointer}/examples")
    examples = read_file(file, task.format, name=path, pointer=f"{pointer}/examples")
    if len(examples) < task.shots:
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"{path} holds {_items(len(examples))}, {task.shots} are to be shown",
            hint="ask for fewer shots",
            pointer=f"{pointer}/shots",
        )
    return examples[: task.shots]


def draw(items: list[T], count: int | None, *, seed: int, pointer: str) -> list[T]:
    """`count` of the items in their order, drawn without replacement."""
    if count is None:
        return items
    if count > len(items):
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"{count} items are asked for, there are {len(items)}",
            hint="ask for fewer, or leave `items` out to take all",
            pointer=f"{pointer}/items",
        )
    chosen = random.Random(seed).sample(range(len(items)), count)  # noqa: S311 - a draw to repeat, no secret
    return [items[index] for index in sorted(chosen)]


def read_file(file: Path, form: TaskFormat, *, name: str, pointer: str, passage: str | None = None) -> list[Item]:
    """Every item of a file, called `name` in errors. `passage`: the field that names each item's."""

    complain = complainer(name, pointer)
    items: list[Item] = []
    for line, row in rows(text_of(file, complain), file.suffix.lower(), form, complain):
        where = f", line {line}"
        missing = _missing(form, row)
        if missing:
            needs = f"{form} needs {', '.join(missing)}"
            complain(where, f"{needs}; there are {', '.join(_names(row)) or 'none'}", "name the format of the file")
        if row.get(ANSWER[form]) in (None, ""):
            complain(
                where,
                f"the answer is missing ({ANSWER[form]})",
                "take a split that has answers: test splits are often published without",
            )
        id_ = next((str(row[key]) for key in ("id", "task_id", "ind") if row.get(key) not in (None, "")), str(line))
        if passage is not None and row.get(passage) in (None, ""):
            complain(where, "the field that passage names is missing", "name a field that every row has")
        item = READERS[form](row, id_[:100], partial(complain, where))
        items.append(item if passage is None else replace(item, passage=str(row[passage])))
        if len(items) > MAX_ITEMS:
            complain("", f"it holds more than {MAX_ITEMS:,} items", "split it")
    if len(items) < 2:
        complain("", f"it holds {_items(len(items))}", "two at least are needed to compare")
    return items


def _items(count: int) -> str:
    return f"{count} item{'' if count == 1 else 's'}"


def _names(row: dict[str, Any]) -> list[str]:
    """The first dozen names of fields. Without a header, a line of CSV is an item and no names: it is not repeated."""
    return [name for name in sorted(map(str, row)) if _NAME.fullmatch(name)][:12]


def _missing(form: TaskFormat, row: dict[str, Any]) -> list[str]:
    """Fields that the format needs and the row has not, that of the answer aside."""
    return [field for field in FIELDS[form] if field not in row and not _nested(form, field, row)]


def _nested(form: TaskFormat, field: str, row: dict[str, Any]) -> bool:
    """ARC as AI2 publishes it has its choices inside the question."""
    return form == "arc" and field == "choices" and isinstance(row.get("question"), dict)
