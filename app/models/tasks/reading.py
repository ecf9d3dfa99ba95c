"""Task files, from disk to items."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.requests.tasks import MAX_ITEMS, METRICS, FileTask, ShippedTask, TaskFormat, TaskMetric
from app.models.paths import below
from app.models.tasks.formats import ANSWER, FIELDS, LETTERS, READERS, Complain
from app.models.tasks.items import Item, with_examples
from app.settings import Settings

SUFFIXES: Final = (".jsonl", ".csv")
SHIPPED: Final = Path(__file__).resolve().parents[3] / "workers" / "text" / "data" / "tasks_example.jsonl"
_SHIPPED_FORMAT: Final = "hellaswag"
_MAX_BYTES: Final = 512 * 1024 * 1024
_MMLU_COLUMNS: Final = 6
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
            f"an item of {task.path} stands among the {task.shots} solved examples",
            hint="take the examples from another split: a model that is shown the answer tells nothing",
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
    return read_file(file, task.format, name=task.path, pointer=f"{pointer}/path")


def _examples(task: FileTask, path: str, settings: Settings, *, pointer: str) -> list[Item]:
    """Those that are shown solved. Raises TASK_INVALID where the file holds too few."""
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


def locate(path: str, settings: Settings, *, pointer: str) -> Path:
    """A task file below the text root."""
    if settings.text_root is None:
        raise HemostatError(
            ErrorCode.PATH_FORBIDDEN,
            "this service reads no files of tasks: no text root is set",
            hint="the operator sets HEMOSTAT_TEXT_ROOT; the shipped task needs no file",
            pointer=pointer,
        )
    file = below(settings.text_root, path, pointer=pointer)
    if not file.is_file():
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"there is no file {path!r} below the text root",
            hint="the path is relative to the text root",
            pointer=pointer,
        )
    if file.suffix.lower() not in SUFFIXES or file.stat().st_size > _MAX_BYTES:
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"{path!r} is neither a .jsonl nor a .csv file of at most {_MAX_BYTES // 1024**2} MiB",
            hint="save the items one a line: JSON objects, or CSV with a header",
            pointer=pointer,
        )
    return file


def draw(items: list[Item], count: int | None, *, seed: int, pointer: str) -> list[Item]:
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


def read_file(file: Path, form: TaskFormat, *, name: str, pointer: str) -> list[Item]:
    """Every item of a file, called `name` in errors."""

    def complain(where: str, what: str, hint: str) -> NoReturn:
        raise HemostatError(ErrorCode.TASK_INVALID, f"{name}{where}: {what}", hint=hint, pointer=pointer)

    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        complain("", "it is not UTF-8 text", "convert it to UTF-8")
    items: list[Item] = []
    for line, row in _rows(text, file.suffix.lower(), form, complain):
        where = f", line {line}"
        missing = _missing(form, row)
        other = _format_of_fields(row) if missing or ANSWER[form] not in row else None
        if missing or other is not None:
            lacking = missing or [ANSWER[form]]
            complain(
                where,
                f"{form} needs the field{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}; "
                f"there are {', '.join(_names(row)) or 'none'}{_likeness(form, row, other)}",
                f"name the format {other or 'that the file has'}; docs/tasks.md lists the fields",
            )
        if row.get(ANSWER[form]) in (None, ""):
            complain(
                where,
                f"the answer is missing ({ANSWER[form]})",
                "take a split that has answers: test splits are often published without",
            )
        id_ = next((str(row[key]) for key in ("id", "task_id", "ind") if row.get(key) not in (None, "")), str(line))
        items.append(READERS[form](row, id_[:100], partial(complain, where)))
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


def _format_of_fields(row: dict[str, Any]) -> TaskFormat | None:
    """The format whose fields, that of the answer among them, the row has; of several the one of most fields."""
    whole = [form for form in FIELDS if ANSWER[form] in row and not _missing(form, row)]
    return max(whole, key=lambda form: len(FIELDS[form]), default=None)


def _likeness(form: TaskFormat, row: dict[str, Any], other: TaskFormat | None) -> str:
    """What a row that is not of its format looks like."""
    if other is not None:
        return f": it looks like {other}, not like {form}"
    return "" if {*FIELDS[form], ANSWER[form]} & row.keys() else f": it does not look like {form}"


def _nested(form: TaskFormat, field: str, row: dict[str, Any]) -> bool:
    """ARC as AI2 publishes it has its choices inside the question."""
    return form == "arc" and field == "choices" and isinstance(row.get("question"), dict)


def _rows(text: str, suffix: str, form: TaskFormat, complain: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    if suffix == ".csv":
        yield from _csv_rows(text, form, complain)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            complain(f", line {number}", f"it is not JSON ({error.msg})", "one JSON object a line")
        if not isinstance(row, dict):
            complain(f", line {number}", "it is no JSON object", "one JSON object a line")
        yield number, row


def _csv_rows(text: str, form: TaskFormat, complain: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cells):
                continue
            if header is None:
                header = _header(cells, form)
                if header != cells:  # MMLU's own files begin with an item
                    yield reader.line_num, _row(header, cells, reader.line_num, complain)
                continue
            yield reader.line_num, _row(header, cells, reader.line_num, complain)
    except csv.Error as error:
        complain(f", line {reader.line_num}", f"it is not CSV ({error})", "quote cells that hold quotes or commas")


def _header(cells: list[str], form: TaskFormat) -> list[str]:
    if form == "mmlu" and len(cells) == _MMLU_COLUMNS and "question" not in cells:
        return ["question", "A", "B", "C", "D", "answer"]
    return cells


def _lettered(row: dict[str, Any], complain: Complain) -> list[str]:
    """The cells A, B, … up to the last one that is filled. A gap would give those behind it other letters than the
    answer counts by."""
    filled = [letter for letter in LETTERS if row.get(letter)]
    letters = LETTERS[: LETTERS.index(filled[-1]) + 1] if filled else ""
    gap = next((letter for letter in letters if letter not in filled), None)
    if gap is not None:
        what = f"cell {gap} is empty" if gap in row else f"there is no cell {gap}"
        complain(f"{what}, and cell {filled[-1]} is not", "leave cells empty at the end only, or take the item out")
    return [row[letter] for letter in letters]


def _row(header: list[str], cells: list[str], line: int, complain: Any) -> dict[str, Any]:
    if len(cells) != len(header):
        complain(f", line {line}", f"it has {len(cells)} cells, the header {len(header)}", "quote cells with commas")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    if "choices" not in row and "A" in row and "B" in row:
        row["choices"] = _lettered(row, partial(complain, f", line {line}"))
    for field in ("choices", "endings"):
        if isinstance(row.get(field), str):
            try:
                row[field] = json.loads(row[field])
            except json.JSONDecodeError:
                complain(f", line {line}", f"{field} is not JSON", 'write lists as JSON: ["one", "two"]')
    return row
