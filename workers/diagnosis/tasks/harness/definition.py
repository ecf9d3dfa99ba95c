"""Definitions of the harness, and which of them fit: what answers can be paired by right and wrong.

A definition brings prompts, filters and metrics; its data set, on a hub, is replaced by rows of ours. What reads a
definition is private to the harness, so its version is pinned exactly.
"""

from __future__ import annotations

import difflib
import logging
import os
import random
import sys
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
from app.models.nearest import listed

# Metrics of multiple choice that need more than each choice's likelihood: whether it would have been drawn, the
# likelihood without the question.
UNANSWERED: Final = ("exact_match", "acc_mutual_info")
_SPLITS: Final = (
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
)
_FILES: Final = ("path", "examples")
_PREFIX: Final = "lm_eval.tasks."
_OWN: Final = frozenset(_PREFIX + name for name in ("manager", "_factory", "_index", "_yaml_loader"))
_STRUCTURE: Final = ("tag", "group", "task_list", "task_alias")


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
def _index() -> Mapping[str, Any]:
    """Every definition that the harness ships, by name; some seconds, once a process."""
    index: Mapping[str, Any] = harness("tasks").TaskManager().task_index
    return index


def _tasks_of(group: str) -> list[str]:
    """The tasks of a group or tag, through the groups in it; a member that is not in the index is left out."""
    found: dict[str, None] = {}
    seen, open_ = {group}, [group]
    while open_:
        entry = _index().get(open_.pop())
        if entry is None:
            continue
        if entry.kind.name not in ("GROUP", "TAG"):
            found[entry.name] = None
            continue
        members = (entry.cfg.get("task") if entry.cfg else None) or sorted(entry.tags)
        names = [one if isinstance(one, str) else str(one.get("task") or one.get("group")) for one in members]
        open_ += [name for name in names if name not in seen]
        seen.update(names)
    return list(found)


def read_definition(task: HarnessTask, refusal: Refusal) -> dict[str, Any]:
    """The definition by its name, with its own functions. Raises INVALID_REQUEST where there is none, and for one
    whose answers are not right or wrong, are drawn, need pictures, sound, or code that is not here."""
    entry = _index().get(task.task)
    if entry is None:
        near = difflib.get_close_matches(task.task, list(_index()), n=3, cutoff=0.6)
        raise refusal(
            "there is no such task",
            f"did you mean {' or '.join(near)}?" if near else "the harness lists its tasks: lm-eval ls tasks",
        )
    if entry.kind.name in ("GROUP", "TAG"):
        raise refusal("it is a group of tasks", f"ask for its tasks one by one; {listed(_tasks_of(task.task))}")
    if entry.kind.name != "TASK":
        raise refusal("it is a program, not a definition", "choose a task that is defined in YAML")
    _check(dict(entry.cfg), refusal)
    # What a definition's code keeps from an earlier job (a generator that was drawn from) must not decide this one.
    for name in [name for name in sys.modules if name.startswith(_PREFIX) and name not in _OWN]:
        del sys.modules[name]
    try:
        definition: dict[str, Any] = harness("tasks._yaml_loader").load_yaml(entry.yaml_path)
    except Exception as error:
        raise refusal(
            f"its own code cannot be loaded here ({type(error).__name__})",
            "it may need a package that is not installed, or fetch something; choose another task",
        ) from error
    return definition


def _check(definition: Mapping[str, Any], refusal: Refusal) -> None:
    kind = definition.get("output_type", "generate_until")
    if kind not in ("multiple_choice", "generate_until"):
        raise refusal(
            f"it asks for the likelihood of a text ({kind}), not for an answer",
            "a compare job measures perplexity; choose a task of multiple choice or of generated answers",
        )
    if kind == "multiple_choice" and not definition.get("doc_to_text"):
        raise refusal(
            "it asks nothing before its choices",
            "a compare job measures how likely texts are; choose a task whose choices follow a prompt",
        )
    if definition.get("unsafe_code"):
        raise refusal(
            "it runs what the model writes, unconfined",
            "a file of HumanEval's fields is run in a sandbox: --task humaneval:FILE",
        )
    for field, what in (
        ("doc_to_image", "it shows pictures"),
        ("doc_to_audio", "it plays sound"),
        ("custom_dataset", "it makes its items itself"),
        ("use_prompt", "its prompts are another package's (promptsource)"),
    ):
        if definition.get(field):
            raise refusal(what, "choose a task whose items are rows of text")
    settings = definition.get("generation_kwargs") or {}
    if settings.get("do_sample") or float(settings.get("temperature") or 0.0) > 0 or definition.get("repeats", 1) != 1:
        raise refusal(
            "its answers are drawn at random",
            "pairs need greedy answers; a trajectory job compares text that is drawn",
        )


def replaced(definition: dict[str, Any], task: HarnessTask, tables: Mapping[str, Any], shots: int) -> dict[str, Any]:
    """The definition over our rows: `tables` holds `items`, and `examples` where there are any."""

    def of_rows(**_: object) -> Mapping[str, Any]:
        return tables

    found = {name: value for name, value in definition.items() if name not in (*_SPLITS, *_STRUCTURE)}
    found |= {"task": task.task, "custom_dataset": of_rows, "test_split": "items", "num_fewshot": shots, "repeats": 1}
    fewshot = found.get("fewshot_config")
    if "examples" in tables:
        found["fewshot_split"] = "examples"
        if isinstance(fewshot, dict):
            kept = {name: value for name, value in fewshot.items() if name not in ("split", "samples")}
            found["fewshot_config"] = kept
    elif isinstance(fewshot, dict):
        found["fewshot_config"] = {name: value for name, value in fewshot.items() if name != "split"}
    if found.get("output_type") == "multiple_choice" and found.get("metric_list"):
        found["metric_list"] = [one for one in found["metric_list"] if one.get("metric") not in UNANSWERED]
    return found


def shots_of(definition: Mapping[str, Any], task: HarnessTask, refusal: Refusal) -> int:
    """Solved examples before each item. Raises TASK_INVALID where there are to be some, and nothing to take them
    from."""
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
