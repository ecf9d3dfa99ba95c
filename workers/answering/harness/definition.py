"""Definitions of the harness over rows of ours.

A definition brings prompts, filters and metrics; its data set, on a hub, is replaced. Only those of `HARNESS_TASKS` are
run: their answers are right or wrong, and their own code draws nothing and runs nothing.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.task import HarnessTask

_DATA: Final = (
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "fewshot_split",
)
_FILES: Final = ("path", "examples")


def harness(module: str) -> Any:
    """A module of the harness, which ships no types. Its log repeats items when it complains: it is closed."""
    found = import_module(f"lm_eval.{module}")
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL + 1)
    return found


@contextmanager
def unheard(seed: int) -> Iterator[None]:
    """Around the harness and its definitions' own code: what they print may hold items, and what they draw is drawn by
    the seed."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def harness_version() -> str:
    """Of lm-evaluation-harness."""
    return version("lm_eval")


class Refusal:
    """Errors about one task of a request."""

    def __init__(self, task: HarnessTask, pointer: str) -> None:
        self._task = task
        self._pointer = pointer

    def __call__(self, what: str, hint: str, field: str = "task") -> HemostatError:
        """To be raised. `field` is the one of the task that is at fault; no file is where another is."""
        return HemostatError(
            ErrorCode.TASK_INVALID if field in _FILES else ErrorCode.INVALID_REQUEST,
            f"lm-evaluation-harness {harness_version()}, {self._task.task}: {what}",
            hint=hint,
            pointer=f"{self._pointer}/{field}",
        )


@cache
def _manager() -> Any:
    """The index of all definitions; some seconds, once a process."""
    return harness("tasks").TaskManager()


def fields_of(name: str) -> Mapping[str, Any]:
    """The fields of a definition. Functions are named, not loaded."""
    fields: Mapping[str, Any] = _manager().task_index[name].cfg
    return fields


def task_over(name: str, tables: Mapping[str, Any], shots: int) -> Any:
    """The harness' task over our rows: `tables` holds `items`, and `examples` if there are any. Raises what the
    definition raises for rows that it does not take."""
    changes: dict[str, Any] = dict.fromkeys(_DATA) | {
        "custom_dataset": lambda **_: tables,
        "test_split": "items",
        "num_fewshot": shots,
    }
    if "examples" in tables:
        changes["fewshot_split"] = "examples"
        own = fields_of(name).get("fewshot_config") or {}
        changes["fewshot_config"] = {field: value for field, value in own.items() if field != "samples"} or None
    # The harness takes changes of a task as a member of a group.
    loaded = _manager().load({"group": "hemostat", "task": [{"task": name, **changes}]})
    return loaded["tasks"][name]


def shots_of(task: HarnessTask, refusal: Refusal) -> int:
    """Solved examples before each item. Raises TASK_INVALID if there are to be some, and nothing to take them from."""
    definition = fields_of(task.task)
    shots = int(definition.get("num_fewshot") or 0) if task.shots is None else task.shots
    if task.examples is not None and not shots:
        raise refusal(
            f"it shows no solved examples of its own accord, and {task.examples} is named to take them from",
            "say how many: shots=5, for instance",
            "shots",
        )
    own = (definition.get("fewshot_config") or {}).get("samples")
    if shots and task.examples is None and not own:
        raise refusal(
            f"{shots} solved examples stand before each item, and no file to take them from is named",
            "name one as examples (the training split, say), or ask for no example: shots=0",
            "examples",
        )
    return shots
