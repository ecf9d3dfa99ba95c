"""Files of the tasks whose definitions are lm-evaluation-harness', as far as they can be read without it.

The harness is the worker's. What can be refused here, before a job is queued, is a file that is no rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.requests.tasks import MAX_ITEMS, HarnessTask
from app.models.tasks.rows import complainer, locate, rows, text_of
from app.settings import Settings

# Longer lists are other things, aliases of an answer, say.
_MOST_CHOICES = 12


@dataclass(frozen=True)
class HarnessRows:
    """A task's rows, and those that its solved examples are drawn from."""

    items: Sequence[dict[str, Any]]
    examples: Sequence[dict[str, Any]]

    def characters(self, count: int | None) -> float:
        """About how many a model reads for `count` of the items (None: all), each choice by itself. Choices are the
        longest list of a row that is short enough for choices."""
        asked = sum(len(json.dumps(row, ensure_ascii=False)) * _choices(row) for row in self.items)
        return asked / len(self.items) * self.count(count)

    def fingerprint(self, scoring: str) -> str:
        """SHA-256, hex, of all rows and of how answers are scored: the same for all draws from one source."""
        digest = hashlib.sha256(f"hemostat.harness-rows/1 {scoring}\n".encode())
        for row in (*self.items, {}, *self.examples):
            digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def count(self, drawn: int | None) -> int:
        """Items that are asked, if the definition leaves none out."""
        return len(self.items) if drawn is None else drawn


def read_rows(task: HarnessTask, settings: Settings, *, pointer: str) -> HarnessRows:
    """Raises PATH_FORBIDDEN, TEXT_NOT_FOUND, and TASK_INVALID, with file and line, for a file that is no rows or that
    holds too few."""
    items = _read(task.path, settings, pointer=f"{pointer}/path")
    if len(items) < 2:
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"{task.path} holds {_items(len(items))}, two at least are needed to compare",
            hint="give a file of more items",
            pointer=f"{pointer}/path",
        )
    if len(items) < (task.items or 0):
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"{task.items} items are asked for, {task.path} holds {len(items)}",
            hint="ask for fewer, or leave `items` out to take all",
            pointer=f"{pointer}/items",
        )
    if task.examples is None:
        return HarnessRows(items, ())
    examples = _read(task.examples, settings, pointer=f"{pointer}/examples")
    if len(examples) < (task.shots or 1):
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"{task.examples} holds {len(examples)}, {task.shots or 1} are to be shown",
            hint="ask for fewer shots",
            pointer=f"{pointer}/shots",
        )
    return HarnessRows(items, examples)


def _read(path: str, settings: Settings, *, pointer: str) -> list[dict[str, Any]]:
    complain = complainer(path, pointer)
    file = locate(path, settings, pointer=pointer)
    if file.suffix.lower() != ".jsonl":
        complain("", "a task of lm-evaluation-harness takes .jsonl", "in CSV a number and its text are the same")
    found = [row for _, row in rows(text_of(file, complain), file.suffix.lower(), None, complain)]
    if len(found) > MAX_ITEMS:
        complain("", f"it holds more than {MAX_ITEMS:,} items", "split it")
    return found


def _items(count: int) -> str:
    return f"{count or 'no'} item{'' if count == 1 else 's'}"


def _choices(row: dict[str, Any]) -> int:
    nested = [value for one in row.values() if isinstance(one, dict) for value in one.values()]
    lists = [one for one in [*row.values(), *nested] if isinstance(one, list) and len(one) <= _MOST_CHOICES]
    return max([1, *map(len, lists)])
