"""Files of the tasks whose definitions are lm-evaluation-harness', as far as they can be read without it.

The harness is the worker's. What can be refused here, before a job is queued, is a file that is no rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.task import MAX_ITEMS, HarnessTask
from app.models.nearest import suggestion
from app.models.tasks.rows import complainer, locate, rows, text_of
from app.settings import Settings

# Definitions that run no code of a model or of a file, and whose metrics are supported: nothing else is read.
_SUBJECTS: Final = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory
professional_accounting professional_law professional_medicine professional_psychology public_relations
security_studies sociology us_foreign_policy virology world_religions
""".split()  # noqa: SIM905 - read more easily
_NAMES: Final = """
anli_r1 anli_r2 anli_r3 arc_challenge arc_easy boolq cb commonsense_qa copa gsm8k gsm8k_cot hellaswag logiqa logiqa2
mathqa medmcqa medqa_4options mrpc nq_open openbookqa piqa pubmedqa qnli race rte sciq social_iqa sst2 swag triviaqa
truthfulqa_mc1 wic winogrande wnli wsc
""".split()  # noqa: SIM905
HARNESS_TASKS: Final = frozenset(_NAMES) | {f"mmlu_{subject}" for subject in _SUBJECTS}

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
    """Raises INVALID_REQUEST for a task that is none of `HARNESS_TASKS`, PATH_FORBIDDEN, TEXT_NOT_FOUND, and
    TASK_INVALID, with file and line, for a file that is no rows or that holds too few."""
    if task.task not in HARNESS_TASKS:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{task.task!r} is not among the supported tasks of lm-evaluation-harness",
            hint=suggestion(task.task, sorted(HARNESS_TASKS)),
            pointer=f"{pointer}/task",
        )
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
