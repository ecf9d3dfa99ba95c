"""One task, answered by both models: by likelihood, by generated text, or by running what they wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.task import METRICS, FileTask, HarnessDefinition, HarnessTask, ShippedTask
from app.files import write_atomically
from app.models.tasks.items import Item, fingerprint
from app.models.tasks.reading import format_of, metric_of
from workers.answering.answers import CHOICE_METRICS, STOPS, Answers, choose, program, read_numbers
from workers.answering.generating import generate
from workers.answering.harness.evaluation import Scored
from workers.answering.harness.running import Harnessed
from workers.answering.likelihood import Likelihoods, likelihoods
from workers.answering.prompts import Prompts, choice_prompts, open_prompts
from workers.answering.sandbox import runner
from workers.answering.sandbox.runner import Ending
from workers.distributions.reference_store import ReferenceStore
from workers.engine.room import EngineRoom
from workers.measuring.plan import plan_fingerprint
from workers.measuring.sides import Sides
from workers.process.handler import JobContext

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
    """A task with both models' answers, by metric; `metric` decides.

    `likelihoods` are those of multiple choice, `endings` how what was code of the generated answers ended;
    `guess` is the share of generated answers that a guess has right.
    """

    task: ShippedTask | FileTask | HarnessTask
    items: Sequence[Item]
    fingerprint: str
    reference: dict[str, Answers]
    candidate: dict[str, Answers]
    metric: str
    shortened: int
    likelihoods: Likelihoods | None = None
    endings: tuple[Sequence[Ending], Sequence[Ending]] | None = None
    harness: HarnessDefinition | None = None
    guess: float = 0.0

    @property
    def passages(self) -> NDArray[np.str_] | None:
        """(I,): each item's passage; None if no two items share one."""
        named = [item.passage for item in self.items if item.passage is not None]
        return np.asarray(named) if len(set(named)) < len(named) else None


def chosen_by(asked: Harnessed, likelihoods: Sequence[NDArray[np.float64]]) -> dict[str, tuple[str | None, ...]]:
    """By metric of multiple choice, which choice it takes: the harness returns only whether that is right."""
    return {metric: choose(asked.items, likelihoods, metric).said for metric in CHOICE_METRICS}


def answers_of(scored: Scored, said: Mapping[str, tuple[str | None, ...]]) -> dict[str, Answers]:
    """By metric. An unknown metric is left out."""
    return {metric: Answers(said.get(metric, (None,) * len(right)), right) for metric, right in scored.right.items()}


@dataclass(frozen=True)
class AnsweringPair:
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

    def answer_harness(self, number: int, task: HarnessTask, asked: Harnessed) -> Answered:
        """Both models' answers to what the harness asks, as it scores them. Raises what `answer` raises."""
        found = None
        if asked.items[0].choices:
            prompts = self._choice_prompts(number, asked.items)
            found = self._likelihoods(number, prompts)
            scored = [asked.choices_scored(one) for one in (found.reference, found.candidate)]
            chosen = [chosen_by(asked, one) for one in (found.reference, found.candidate)]
        else:
            prompts, texts = self._texts(number, asked.items, asked.max_tokens, asked.stops)
            scored = [asked.texts_scored(one) for one in texts]
            chosen = [one.said for one in scored]
        both = [answers_of(one, said) for one, said in zip(scored, chosen, strict=True)]
        return Answered(
            task,
            asked.items,
            fingerprint(asked.items, metric=asked.scoring),
            metric=asked.metric,
            reference=both[0],
            candidate=both[1],
            shortened=prompts.shortened,
            likelihoods=found,
            harness=asked.definition,
            guess=asked.guess,
        )

    def answer(self, number: int, task: ShippedTask | FileTask, items: Sequence[Item]) -> Answered:
        """Both models' answers to the items of the request's task `number`.

        Raises what engines raise, WINDOW_TOO_LARGE, CODE_SANDBOX_UNAVAILABLE, and `JobCancelled`.
        """
        if items[0].choices:
            return self._choices(number, task, items)
        assert isinstance(task, FileTask)  # noqa: S101 - the shipped task is multiple choice
        return self._generated(number, task, items)

    def _choices(self, number: int, task: ShippedTask | FileTask, items: Sequence[Item]) -> Answered:
        prompts = self._choice_prompts(number, items)
        found = self._likelihoods(number, prompts)
        metrics = METRICS[format_of(task)]
        return Answered(
            task,
            items,
            fingerprint_of(task, items),
            metric=metric_of(task),
            reference={metric: choose(items, found.reference, metric) for metric in metrics},
            candidate={metric: choose(items, found.candidate, metric) for metric in metrics},
            shortened=prompts.shortened,
            likelihoods=found,
        )

    def _choice_prompts(self, number: int, items: Sequence[Item]) -> Prompts:
        return choice_prompts(
            items,
            self.tokenizer,
            self.bos,
            self.limit,
            pointer=f"/tasks/{number}",
            check_cancelled=self.context.check_cancelled,
        )

    def _likelihoods(self, number: int, prompts: Prompts) -> Likelihoods:
        return likelihoods(
            prompts,
            self.sides,
            room=self.room,
            store=self.store,
            context=self.context,
            scratch=f"task-{number}",
        )

    def _texts(
        self, number: int, items: Sequence[Item], max_tokens: int, stops: Sequence[str]
    ) -> tuple[Prompts, tuple[list[str], list[str]]]:
        """The prompts, and what both models write after them."""
        context = self.context
        prompts = open_prompts(
            items,
            self.tokenizer,
            self.bos,
            self.limit - max_tokens,
            pointer=f"/tasks/{number}/max_tokens",
            check_cancelled=context.check_cancelled,
        )
        reference, candidate = (
            generate(
                prompts,
                side,
                dtype=self.sides.dtype,
                max_tokens=max_tokens,
                stops=stops,
                tokenizer=self.tokenizer,
                room=self.room,
                context=context,
                folder=self._folder(number),
            )
            for side in (self.sides.reference, self.sides.candidate)
        )
        return prompts, (reference, candidate)

    def _folder(self, number: int) -> Path:
        return self.context.scratch / f"task-{number}"

    def _generated(self, number: int, task: FileTask, items: Sequence[Item]) -> Answered:
        prompts, texts = self._texts(number, items, task.max_tokens, STOPS[task.format])
        both: list[dict[str, Answers]] = []
        endings: list[list[Ending]] = []
        if task.format == "humaneval":
            done = sum(map(len, texts))
            for index, side in enumerate(texts):
                ends = self._run(items, side, self._folder(number), already=index * len(items), total=done)
                endings.append(ends)
                right = np.asarray([end.outcome == "passed" for end in ends], dtype=np.bool_)
                both.append({"pass_at_1": Answers(tuple(side), right)})
        else:
            both = [{metric: read_numbers(items, side, metric) for metric in METRICS[task.format]} for side in texts]
        return Answered(
            task,
            items,
            fingerprint_of(task, items),
            metric=metric_of(task),
            reference=both[0],
            candidate=both[1],
            shortened=prompts.shortened,
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
            code, test = program(item, text)
            file = folder / f"ending-{plan_fingerprint([code, *vars(test).values()])[:32]}.json"
            try:
                end = Ending(**json.loads(file.read_bytes()))
            except (FileNotFoundError, ValueError, TypeError):
                end = runner.run(code, test, check_cancelled=self.context.check_cancelled)
                write_atomically(file, json.dumps(vars(end)).encode())
            ends.append(end)
        self.context.progress("execute", already + len(items), total)
        return ends
