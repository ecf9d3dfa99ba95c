"""One task, answered by both models: by likelihood, by generated text, or by running what they wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from app.contracts.requests.tasks import METRICS, FileTask, ShippedTask, TaskMetric
from app.models.tasks.items import Item, fingerprint
from app.models.tasks.reading import format_of, metric_of
from workers.diagnosis.context import JobContext
from workers.diagnosis.plan import plan_fingerprint
from workers.diagnosis.sides import Sides
from workers.diagnosis.tasks.answers import STOPS, Answers, choose, program, read_numbers
from workers.diagnosis.tasks.generating import generate
from workers.diagnosis.tasks.likelihood import Likelihoods, likelihoods
from workers.diagnosis.tasks.prompts import choice_prompts, open_prompts
from workers.diagnosis.tasks.sandbox import runner
from workers.diagnosis.tasks.sandbox.runner import Ending
from workers.distributions.reference_store import ReferenceStore
from workers.engine.room import EngineRoom
from workers.process.context import write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Context where a model says nothing of how much it takes.
_CONTEXT: Final = 4096


def fingerprint_of(task: ShippedTask | FileTask, items: Sequence[Item]) -> str:
    """SHA-256, hex, of what the task asks and how its answers are scored; no answer has a part in it."""
    tokens = task.max_tokens if isinstance(task, FileTask) and not items[0].choices else 0
    return fingerprint(items, metric=f"{format_of(task)} {metric_of(task)} {tokens}")


@dataclass(frozen=True)
class Answered:
    """A task with both models' answers, by metric; the first metric decides.

    `likelihoods` are those of multiple choice, `texts` what both generated, `endings` how what was code of it ended.
    """

    task: ShippedTask | FileTask
    items: Sequence[Item]
    fingerprint: str
    reference: dict[TaskMetric, Answers]
    candidate: dict[TaskMetric, Answers]
    shortened: int
    likelihoods: Likelihoods | None = None
    texts: tuple[Sequence[str], Sequence[str]] | None = None
    endings: tuple[Sequence[Ending], Sequence[Ending]] | None = None

    @property
    def metric(self) -> TaskMetric:
        """The one that decides."""
        return metric_of(self.task)


@dataclass(frozen=True)
class Desk:
    """What every task is answered with."""

    sides: Sides
    tokenizer: PreTrainedTokenizerBase
    bos: int | None
    room: EngineRoom
    store: ReferenceStore
    context: JobContext

    @property
    def limit(self) -> int:
        """Tokens that both models take at once."""
        limits = [side.info.max_position for side in (self.sides.reference, self.sides.candidate)]
        return min((limit for limit in limits if limit is not None), default=_CONTEXT)

    def answer(self, number: int, task: ShippedTask | FileTask, items: Sequence[Item]) -> Answered:
        """Both models' answers to the items of the request's task `number`.

        Raises what engines raise, WINDOW_TOO_LARGE, CODE_SANDBOX_UNAVAILABLE, and `JobCancelled`.
        """
        if items[0].choices:
            return self._choices(number, task, items)
        assert isinstance(task, FileTask)  # noqa: S101 - the shipped task is multiple choice
        return self._generated(number, task, items)

    def _choices(self, number: int, task: ShippedTask | FileTask, items: Sequence[Item]) -> Answered:
        prompts = choice_prompts(
            items,
            self.tokenizer,
            self.bos,
            self.limit,
            pointer=f"/tasks/{number}",
            check_cancelled=self.context.check_cancelled,
        )
        found = likelihoods(
            prompts,
            self.sides,
            room=self.room,
            store=self.store,
            context=self.context,
            scratch=f"task-{number}",
        )
        metrics = METRICS[format_of(task)]
        return Answered(
            task,
            items,
            fingerprint_of(task, items),
            reference={metric: choose(items, found.reference, metric) for metric in metrics},
            candidate={metric: choose(items, found.candidate, metric) for metric in metrics},
            shortened=prompts.shortened,
            likelihoods=found,
        )

    def _generated(self, number: int, task: FileTask, items: Sequence[Item]) -> Answered:
        context = self.context
        prompts = open_prompts(
            items,
            self.tokenizer,
            self.bos,
            self.limit - task.max_tokens,
            pointer=f"/tasks/{number}/max_tokens",
            check_cancelled=context.check_cancelled,
        )
        folder = context.scratch / f"task-{number}"
        texts = [
            generate(
                prompts,
                side,
                dtype=self.sides.dtype,
                max_tokens=task.max_tokens,
                stops=STOPS[task.format],
                tokenizer=self.tokenizer,
                room=self.room,
                context=context,
                folder=folder,
            )
            for side in (self.sides.reference, self.sides.candidate)
        ]
        both: list[dict[TaskMetric, Answers]] = []
        endings: list[list[Ending]] = []
        if task.format == "humaneval":
            runner.require(check_cancelled=context.check_cancelled)
            done = sum(map(len, texts))
            for index, side in enumerate(texts):
                ends = self._run(items, side, folder, already=index * len(items), total=done)
                endings.append(ends)
                right = np.asarray([end.outcome == "passed" for end in ends], dtype=np.bool_)
                both.append({"pass_at_1": Answers(tuple(side), right)})
        else:
            both = [{metric: read_numbers(items, side, metric) for metric in METRICS[task.format]} for side in texts]
        return Answered(
            task,
            items,
            fingerprint_of(task, items),
            reference=both[0],
            candidate=both[1],
            shortened=prompts.shortened,
            texts=(texts[0], texts[1]),
            endings=(endings[0], endings[1]) if endings else None,
        )

    def _run(
        self, items: Sequence[Item], texts: Sequence[str], folder: Path, *, already: int, total: int
    ) -> list[Ending]:
        """How each completed function and its test end; what was run before is found again."""
        ends = []
        for number, (item, text) in enumerate(zip(items, texts, strict=True)):
            self.context.progress("execute", already + number, total)
            self.context.check_cancelled()  # here too: a program may be over before its runner asks
            code = program(item, text)
            file = folder / f"ending-{plan_fingerprint([code])[:32]}.json"
            try:
                end = Ending(**json.loads(file.read_bytes()))
            except (FileNotFoundError, ValueError, TypeError):
                end = runner.run(code, check_cancelled=self.context.check_cancelled)
                write_atomically(file, json.dumps(vars(end)).encode())
            ends.append(end)
        self.context.progress("execute", already + len(items), total)
        return ends
