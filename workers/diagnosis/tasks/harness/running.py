"""The harness as the runner: it asks, we answer, it scores.

What it asks is read off a trial; the answers of our engine are handed to its evaluator, which scores them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.errors import HemostatError
from app.contracts.task import HarnessTask
from app.kinds.tasks.report import HarnessDefinition
from app.models.tasks.harness import HarnessRows
from app.models.tasks.items import Item
from workers.diagnosis.tasks.harness.asking import item_of
from workers.diagnosis.tasks.harness.building import Built, build
from workers.diagnosis.tasks.harness.definition import (
    Refusal,
    harness,
    harness_version,
    read_definition,
    replaced,
    shots_of,
    unheard,
)
from workers.diagnosis.tasks.harness.evaluation import Scored, asked_of, of_one_filter, run, scored
from workers.diagnosis.tasks.harness.metric import check_scored, deciding_metric, guess_of
from workers.diagnosis.tasks.harness.table import table
from workers.diagnosis.tasks.harness.trials import more_trials, trial_of
from workers.process.handler import JobCancelled

MAX_TOKENS: Final = 256
# In the place of a log-likelihood that is no number: far below all others, and finite for the harness' arithmetic.
_NEVER: Final = -1e30


class NotScoredError(HemostatError):
    """A definition that fails on what a model said, which no trial had shown: the other tasks of a job go on."""

    @classmethod
    def of(cls, error: HemostatError) -> NotScoredError:
        """The same, so named."""
        return cls(error.code, error.detail, hint=error.hint, pointer=error.pointer)


@dataclass(frozen=True)
class Harnessed:
    """A task of the harness over our rows. `metric` decides; `stops` and `max_tokens` are of generated answers; `guess`
    is the share of them that whoever always gives the commonest right answer has right."""

    definition: HarnessDefinition
    items: tuple[Item, ...]
    metric: str
    stops: tuple[str, ...]
    max_tokens: int
    guess: float
    built: Built
    seed: int
    refusal: Refusal

    @property
    def scoring(self) -> str:
        """What decides how answers are asked for and scored, items aside."""
        told = self.definition
        words = ["lm_eval", told.version, told.task, told.task_version, self.metric, f"{told.shots}-shot"]
        return " ".join(map(str, words if self.items[0].choices else [*words, self.max_tokens]))

    def choices_scored(self, likelihoods: Sequence[NDArray[np.float64]]) -> Scored:
        """From each choice's log-likelihood, nats. One that is no number is never chosen."""
        answers = [(float(one) if np.isfinite(one) else _NEVER, False) for values in likelihoods for one in values]
        found = self._scored(answers)
        sound = np.asarray([bool(np.isfinite(values).any()) for values in likelihoods], dtype=np.bool_)
        return Scored({metric: right & sound for metric, right in found.right.items()}, {})

    def texts_scored(self, texts: Sequence[str]) -> Scored:
        """From generated answers, as far as the first stop."""
        return self._scored(list(texts))

    def _scored(self, answers: Sequence[object]) -> Scored:
        """Raises `NotScoredError` where what decides gives other numbers than right and wrong, where the definition
        asks something else than it did before, and where its own code fails on an answer."""
        try:
            samples = run(self.built.task, answers, seed=self.seed)
        except JobCancelled:
            raise
        except Exception as error:
            told = self.refusal(f"its own code fails on an answer ({type(error).__name__})", "choose another task")
            raise NotScoredError.of(told) from error
        asked = [tuple(map(asked_of, one["arguments"])) for one in of_one_filter(samples)]
        if asked != [item.pairs or ((item.context, ""),) for item in self.items]:
            told = self.refusal("it asks something else each time it is read", "choose a task that asks the same")
            raise NotScoredError.of(told)
        found = scored(samples)
        try:
            check_scored(found, self.metric, self.refusal)
        except HemostatError as error:
            raise NotScoredError.of(error) from None
        return found


def prepare(
    task: HarnessTask, rows: HarnessRows, *, seed: int, pointer: str, check_cancelled: Callable[[], None]
) -> Harnessed:
    """The task, with what it asks. Raises INVALID_REQUEST for a definition that does not fit and a metric that is not
    one of right and wrong, TASK_INVALID for rows that the definition does not take; `JobCancelled`."""
    refusal = Refusal(task, pointer)
    with unheard(seed):
        definition = read_definition(task, refusal)
    shots = shots_of(definition, task, refusal)
    tables = {"items": table(rows.items, task.path, refusal, "path")}
    if rows.examples:
        tables["examples"] = table(rows.examples, str(task.examples), refusal, "examples")
    with unheard(seed):
        built = build(
            replaced(definition, task, tables, shots),
            tables,
            str(definition.get("dataset_path") or task.task),
            task,
            rows,
            seed=seed,
            pointer=pointer,
            refusal=refusal,
            check_cancelled=check_cancelled,
        )
    metric = deciding_metric(built.task, task, refusal)
    samples = trial_of(built.task, task, rows, refusal, seed)
    with unheard(seed):
        items = tuple(
            item_of(built, index, sample, task, refusal) for index, sample in enumerate(of_one_filter(samples))
        )
    for tried in (samples, *more_trials(built.task, items, of_one_filter(samples), task, rows, refusal, seed)):
        check_scored(scored(tried), metric, refusal)
    settings = harness("models.utils").normalize_gen_kwargs(
        {"do_sample": False} | (built.task.config.generation_kwargs or {}), MAX_TOKENS
    )
    metadata = built.task.config.metadata or {}
    return Harnessed(
        HarnessDefinition(
            task=task.task,
            version=harness_version(),
            task_version=None if metadata.get("version") is None else str(metadata["version"]),
            shots=shots,
        ),
        items,
        metric,
        stops=tuple(map(str, settings["until"])),
        max_tokens=task.max_tokens or int(settings["max_gen_toks"]),
        guess=guess_of(built.task, items, samples),
        built=built,
        seed=seed,
        refusal=refusal,
    )
