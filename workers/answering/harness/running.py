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
from app.contracts.task import HarnessDefinition, HarnessTask
from app.models.tasks.harness import HarnessRows
from app.models.tasks.items import Item
from workers.answering.harness.building import Built, build
from workers.answering.harness.definition import Refusal, harness_version, unheard
from workers.answering.harness.evaluation import Sample, Scored, of_one_filter, run, scored
from workers.answering.harness.item import item_of
from workers.answering.harness.metric import deciding_metric, guess_of
from workers.process.handler import JobCancelled

MAX_TOKENS: Final = 256
# In the place of a log-likelihood that is no number: far below all others, and finite for the harness' arithmetic.
_NEVER: Final = -1e30


class NotScoredError(HemostatError):
    """A definition that fails on what a model said: the other tasks of a job go on."""

    @classmethod
    def of(cls, error: HemostatError) -> NotScoredError:
        """The same, so named."""
        return cls(error.code, error.detail, hint=error.hint, pointer=error.pointer)


@dataclass(frozen=True)
class Harnessed:
    """A task of the harness over our rows. `metric` decides; `stops` and `max_tokens` are of generated answers; `guess`
    is the share of them that is right if the commonest right answer is always given."""

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
        """Raises `NotScoredError` if the definition's own code fails on an answer."""
        try:
            return scored(run(self.built.task, answers, seed=self.seed))
        except JobCancelled:
            raise
        except Exception as error:
            failed = self.refusal(f"its own code fails on an answer ({type(error).__name__})", "choose another task")
            raise NotScoredError.of(failed) from error


def prepare(
    task: HarnessTask, rows: HarnessRows, *, seed: int, pointer: str, check_cancelled: Callable[[], None]
) -> Harnessed:
    """The task, with what it asks. Raises INVALID_REQUEST for a metric that is not one of right and wrong, TASK_INVALID
    for rows that the definition does not take; `JobCancelled`."""
    refusal = Refusal(task, pointer)
    built = build(task, rows, seed=seed, pointer=pointer, refusal=refusal, check_cancelled=check_cancelled)
    metric = deciding_metric(built.task, task, refusal)
    samples = _asked(built, task, refusal, seed)
    with unheard(seed):
        items = tuple(item_of(built, index, sample, task, refusal) for index, sample in enumerate(samples))
    config = built.task.config
    version = (config.metadata or {}).get("version")
    return Harnessed(
        HarnessDefinition(
            task=task.task,
            version=harness_version(),
            task_version=None if version is None else str(version),
            shots=built.shots,
        ),
        items,
        metric,
        stops=tuple(map(str, (config.generation_kwargs or {}).get("until", ()))),
        max_tokens=task.max_tokens or MAX_TOKENS,
        guess=guess_of(items),
        built=built,
        seed=seed,
        refusal=refusal,
    )


def _asked(built: Built, task: HarnessTask, refusal: Refusal, seed: int) -> list[Sample]:
    """What is asked of each item, read off an evaluation of empty answers. Raises TASK_INVALID if it cannot be run."""
    try:
        return of_one_filter(run(built.task, None, seed=seed))
    except JobCancelled:
        raise
    except Exception as error:
        raise refusal(
            f"what it asks about the items of {task.path} cannot be run ({type(error).__name__})",
            "the file may lack a field, or a number of solved examples be too large",
            "path",
        ) from error
