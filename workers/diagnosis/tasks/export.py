"""What a tasks job leaves beside its report: every answer, so that each number can be checked, and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.kinds.tasks.report import TasksReport
from app.kinds.tasks.request import TasksRequest
from workers.answering.pair import Answered
from workers.diagnosis.tasks.answer_classes import AnswerClasses
from workers.diagnosis.tasks.result import stores
from workers.measuring.gauges import send
from workers.process.handler import JobContext

ANSWERS_FILE: Final = "answers.jsonl"


def write_answers(
    answered: Sequence[Answered], classes: Sequence[AnswerClasses], request: TasksRequest, folder: Path
) -> None:
    """One line an item: by metric who is right, log-likelihoods of choices, how code ended, the token classes of its
    answer where they are known. What was spoken (the choice, the number, the completion of code) is there only where
    text may be stored."""
    with (folder / ANSWERS_FILE).open("w", encoding="utf-8") as file:
        for one, of in zip(answered, classes, strict=True):
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(one, of, request))


def _lines(one: Answered, classes: AnswerClasses, request: TasksRequest) -> Iterator[dict[str, Any]]:
    stored = stores(one, request)
    for index, item in enumerate(one.items):
        line: dict[str, Any] = {"task": one.task.title, "item": item.id}
        for name, side in (("reference", one.reference), ("candidate", one.candidate)):
            told: dict[str, Any] = {metric: bool(answers.right[index]) for metric, answers in side.items()}
            if one.likelihoods is not None:
                values = (one.likelihoods.reference if name == "reference" else one.likelihoods.candidate)[index]
                told["logp"] = [float(value) if np.isfinite(value) else None for value in values]
            if one.endings is not None:
                end = one.endings[0 if name == "reference" else 1][index]
                told["outcome"] = end.outcome
                if end.error is not None:
                    told["error"] = end.error
            if stored:
                told["said"] = side[one.metric].said[index]
            line[name] = told
        if item.choices:
            line["gold"] = item.gold
        if classes.where is not None:
            line["classes"] = classes.of_item(index)
        yield line


def export_metrics(report: TasksReport, context: JobContext) -> None:
    """Gauges of each task. Labels are aliases, the recipe's fingerprint, and the task's name."""
    for result in report.results:
        gauges = {
            "task_accuracy_ratio": result.candidate.mean,
            "task_accuracy_difference": result.difference.mean,
            "task_flip_ratio": result.flips.rate.mean,
        }
        send(gauges, report.labels() | {"task": result.name}, context)
