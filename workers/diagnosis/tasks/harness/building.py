"""A definition over our rows, settled once.

A definition's own code may shuffle choices whenever the harness reads the data set, and it reads it again for every
filter. From a hub the processed data set is kept on disk; here it is made once and kept, so that what is asked and what
is scored are the same. Only the items that are drawn are kept.
"""

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
from workers.diagnosis.tasks.harness.definition import Refusal, harness
from workers.diagnosis.tasks.harness.table import ROW

# Rows that are tried one by one to name the one that a definition does not take.
_TRIED: Final = 2000


@dataclass(frozen=True)
class Built:
    """The harness' task, and by item what it is called in the file: the row's number, or the definition's own."""

    task: Any
    numbers: tuple[int, ...]
    of_rows: bool

    def where(self, index: int, path: str) -> str:
        """What an error calls an item."""
        return f"{path}, {'' if self.of_rows else 'the definition’s '}item {self.numbers[index]}"


def build(
    config: dict[str, Any],
    tables: Mapping[str, Any],
    published: str,
    task: HarnessTask,
    rows: HarnessRows,
    *,
    seed: int,
    pointer: str,
    refusal: Refusal,
    check_cancelled: Callable[[], None],
) -> Built:
    """The task over the items that are drawn. Raises TASK_INVALID for rows that the definition does not take or that
    are among its solved examples, and where too few are left."""
    make = harness("api.task").ConfigurableTask
    try:
        built = make(config=dict(config))
        docs = built.task_docs
    except Exception as error:
        raise refusal(
            f"it does not take {_culprit(make, config, rows)} of {task.path}: {told(error, rows)}",
            f"the definition is written for the data set {published}: give its fields. The first item has "
            f"{', '.join(sorted(map(str, rows.items[0]))[:12])}",
            "path",
        ) from error
    if len(docs) < 2:
        raise refusal(
            f"the definition leaves {len(docs)} of the {len(rows.items)} items of {task.path}",
            "two at least are needed to compare",
            "path",
        )
    kept = draw(list(range(len(docs))), task.items, seed=seed, pointer=pointer)
    docs = docs.select(kept)
    of_rows = ROW in docs.column_names
    built.config.process_docs = None
    built.dataset = {**tables, "items": docs}
    built.task_docs = docs
    if built.config.num_fewshot:
        _check_leak(built, docs, rows, task, refusal)
    _ask(built, check_cancelled)
    return Built(built, tuple(docs[ROW]) if of_rows else tuple(index + 1 for index in kept), of_rows)


def _ask(built: Any, check_cancelled: Callable[[], None]) -> None:
    """Has the harness ask between items whether the job was told to stop."""
    for name in ("construct_requests", "process_results"):
        setattr(built, name, _asking(getattr(built, name), check_cancelled))


def _asking(method: Callable[..., Any], check_cancelled: Callable[[], None]) -> Callable[..., Any]:
    def asking(*args: Any, **options: Any) -> Any:
        check_cancelled()
        return method(*args, **options)

    return asking


def _check_leak(built: Any, docs: Any, rows: HarnessRows, task: HarnessTask, refusal: Refusal) -> None:
    """Raises TASK_INVALID where an item is among what solved examples are taken from, whatever its other fields say,
    and in whatever order a definition puts its choices into the question."""
    examples = list(built.fewshot_docs() or ())
    shown = {question for doc in examples if (question := _question(built, doc)) is not None}
    # A set that items of other words have, too (yes and no, say), tells no question from another.
    words: dict[frozenset[str], set[str]] = {}
    for doc in docs:
        if found := _texts(built, doc, rows.items):
            words.setdefault(found, set()).add(str(sorted(str(_question(built, doc)).split())))
    known = {found for doc in examples if (found := _texts(built, doc, rows.examples))}
    again = any(found in known and len(kinds) == 1 for found, kinds in words.items())
    if again or any(_question(built, doc) in shown for doc in docs):
        raise refusal(
            f"an item of {task.path} stands among what solved examples are taken from",
            "take the examples from another split: a model that is shown the answer tells nothing",
            "examples",
        )


def _question(built: Any, doc: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is asked, with its choices in any order; None of examples that a definition brings in another form."""
    try:
        choices = built.doc_to_choice(doc) if built.config.doc_to_choice is not None else ()
        # Where choices stand in the middle of a sentence, its end is what the harness calls the target.
        asked = built.doc_to_target(doc) if built.multiple_input else built.doc_to_text(doc)
        return str(asked), str(sorted(map(str, choices)))
    except Exception:  # a definition's own code
        return None


def _texts(built: Any, doc: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Those texts of a row that are asked, in no order: a definition may shuffle choices into the question. Empty
    where it leaves no row's number, and where `_question` is whole without."""
    number = doc.get(ROW)
    if built.multiple_input or number is None or not 0 < number <= len(rows):
        return frozenset()
    question = _question(built, doc)
    asked = _plain(" ".join(question)) if question is not None else ""
    found = {text for leaf in _leaves(rows[number - 1]) if (text := _plain(leaf)) and text in asked}
    # A number or a letter may be a field of its own and stand in a text by chance.
    return frozenset(text for text in found if not any(text in other for other in found - {text}))


def _plain(text: str) -> str:
    """Letters and digits alone: definitions mend brackets, spaces and capitals."""
    return "".join(filter(str.isalnum, text.casefold()))


def _culprit(make: Any, config: dict[str, Any], rows: HarnessRows) -> str:
    """The first row that the definition does not take by itself."""
    import datasets

    for number, row in enumerate(rows.items[:_TRIED], 1):
        one = {"items": datasets.Dataset.from_list([row])}
        try:
            make(
                config=config | {"custom_dataset": lambda kept=one, **_: kept, "num_fewshot": 0, "fewshot_split": None}
            )
        except Exception:
            return f"item {number}"
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
