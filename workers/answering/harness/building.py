"""A definition over those of our rows that are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.contracts.task import HarnessTask
from app.models.tasks.harness import HarnessRows
from app.models.tasks.reading import draw
from workers.answering.harness.definition import Refusal, fields_of, shots_of, task_over, unheard
from workers.answering.harness.table import table


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
                f"it does not take the items of {task.path} ({type(error).__name__})",
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
        setattr(built, name, _cancellable(getattr(built, name), check_cancelled))


def _cancellable(method: Callable[..., Any], check_cancelled: Callable[[], None]) -> Callable[..., Any]:
    def checked(*args: Any, **options: Any) -> Any:
        check_cancelled()
        return method(*args, **options)

    return checked


def _check_leak(built: Any, task: HarnessTask, refusal: Refusal) -> None:
    """Raises TASK_INVALID if an item is among what solved examples are taken from, whatever its other fields are."""
    shown = {_question(built, doc) for doc in built.fewshot_docs() or ()} - {None}
    if any(_question(built, doc) in shown for doc in built.task_docs):
        raise refusal(
            f"an item of {task.path} is among what solved examples are taken from",
            "take the examples from another split: otherwise the model sees the answer",
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
