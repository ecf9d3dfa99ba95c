"""A definition over those of our rows that are drawn."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from app.contracts.errors import HemostatError
from app.contracts.task import HarnessTask
from app.models.tasks.harness import HarnessRows
from app.models.tasks.reading import draw
from workers.answering.harness.definition import Refusal, fields_of, shots_of, task_over, unheard
from workers.answering.harness.table import table

# Rows that are tried one by one to name the one that a definition does not take.
_TRIED: Final = 2000


@dataclass(frozen=True)
class Built:
    """The harness' task, how many solved examples it shows, and each item's number in the file, from 1."""

    task: Any
    shots: int
    numbers: tuple[int, ...]

    def where(self, index: int, path: str) -> str:
        """What an error calls an item."""
        return f"{path}, item {self.numbers[index]}"


def build(
    task: HarnessTask,
    rows: HarnessRows,
    *,
    seed: int,
    pointer: str,
    refusal: Refusal,
    check_cancelled: Callable[[], None],
) -> Built:
    """The task over the items that are drawn. Raises TASK_INVALID for rows that the definition does not take or that
    are among its solved examples."""
    shots = shots_of(task, refusal)
    kept = draw(list(range(len(rows.items))), task.items, seed=seed, pointer=pointer)
    tables = {"items": table(rows.items, task.path, refusal, "path").select(kept)}
    if rows.examples:
        tables["examples"] = table(rows.examples, str(task.examples), refusal, "examples")
    with unheard(seed):
        try:
            built = task_over(task.task, tables, shots)
        except Exception as error:
            raise refusal(
                f"it does not take {_culprit(task.task, rows, kept)} of {task.path}: {told(error, rows)}",
                f"the definition is written for the data set {fields_of(task.task).get('dataset_path')}: give its "
                f"fields. The first item has {', '.join(sorted(map(str, rows.items[0]))[:12])}",
                "path",
            ) from error
        if shots:
            _check_leak(built, task, refusal)
    _ask(built, check_cancelled)
    return Built(built, shots, tuple(index + 1 for index in kept))


def _ask(built: Any, check_cancelled: Callable[[], None]) -> None:
    """Has the harness ask between items whether the job was asked to stop."""
    for name in ("construct_requests", "process_results"):
        setattr(built, name, _asking(getattr(built, name), check_cancelled))


def _asking(method: Callable[..., Any], check_cancelled: Callable[[], None]) -> Callable[..., Any]:
    def asking(*args: Any, **options: Any) -> Any:
        check_cancelled()
        return method(*args, **options)

    return asking


def _check_leak(built: Any, task: HarnessTask, refusal: Refusal) -> None:
    """Raises TASK_INVALID if an item is among what solved examples are taken from, whatever its other fields are."""
    shown = {_question(built, doc) for doc in built.fewshot_docs() or ()} - {None}
    if any(_question(built, doc) in shown for doc in built.task_docs):
        raise refusal(
            f"an item of {task.path} is among what solved examples are taken from",
            "take the examples from another split: a model that sees the answer proves nothing",
            "examples",
        )


def _question(built: Any, doc: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is asked, with its choices in any order; None of a row that the definition does not take."""
    try:
        choices = built.doc_to_choice(doc) if built.config.doc_to_choice is not None else ()
        # If choices are in the middle of a sentence, its end is what the harness calls the target.
        asked = built.doc_to_target(doc) if built.multiple_input else built.doc_to_text(doc)
        return str(asked), str(sorted(map(str, choices)))
    except Exception:  # a definition's own code
        return None


def _culprit(name: str, rows: HarnessRows, kept: list[int]) -> str:
    """The first row that the definition does not take by itself."""
    import datasets

    for index in kept[:_TRIED]:
        try:
            task_over(name, {"items": datasets.Dataset.from_list([rows.items[index]])}, 0)
        except Exception:
            return f"item {index + 1}"
    return "the items"


def told(error: Exception, rows: HarnessRows) -> str:
    """The kind of an error, with the field that it says is missing. Other messages may hold text of items."""
    if isinstance(error, HemostatError):
        return str(error)
    kind = type(error).__name__
    named = str(error.args[0]) if isinstance(error, KeyError) and error.args else ""
    if kind == "UndefinedError":
        named = str(error).split("'")[1] if str(error).count("'") >= 2 else ""
    return f"the field {named} is missing" if _is_field(named, error, rows) else kind


def _is_field(named: str, error: Exception, rows: HarnessRows) -> bool:
    """Whether it can be a field that was looked for: no key of the rows, no value in them, no system variable."""
    if not named.isidentifier() or len(named) > 40:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    if frames and PurePath(frames[-1].filename).name == "os.py":
        return False
    every = (*rows.items, *rows.examples)
    return not any(named in row for row in every) and not any(named in _leaves(row) for row in every)


def _leaves(value: object) -> set[str]:
    """Every text in a row."""
    if isinstance(value, Mapping):
        return {text for one in value.values() for text in _leaves(one)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {text for one in value for text in _leaves(one)}
    return {str(value)}
