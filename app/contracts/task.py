"""A task: items that both models answer. Kinds that ask for answers share it."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from app.contracts.base import Contract, broken
from app.contracts.report import Count
from app.contracts.request import Alias

TaskFormat = Literal["hellaswag", "arc", "mmlu", "gsm8k", "humaneval"]
TaskMetric = Literal["acc", "acc_norm", "acc_bytes", "exact_match_strict", "exact_match_flexible", "pass_at_1"]
# What a format is scored by; the first one decides unless the request names another.
METRICS: Final[dict[TaskFormat, tuple[TaskMetric, ...]]] = {
    "hellaswag": ("acc_norm", "acc", "acc_bytes"),
    "arc": ("acc_norm", "acc", "acc_bytes"),
    "mmlu": ("acc",),
    "gsm8k": ("exact_match_flexible", "exact_match_strict"),
    "humaneval": ("pass_at_1",),
}
MAX_ITEMS: Final = 100_000
TASKS_HINT: Final = "/openapi.json lists the fields of a task."
Path = Annotated[str, Field(min_length=1, max_length=1000)]
HarnessName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]


class ShippedTask(Contract):
    """The multiple-choice items that come with Hemostat: simple sentences to complete."""

    source: Literal["shipped"]
    items: Annotated[int, Field(ge=2, le=MAX_ITEMS)] | None = Field(default=None, description="so many of them, drawn")

    @property
    def title(self) -> str:
        """What the task is called in the report."""
        return "example"


class FileTask(Contract):
    """A file of items below the operator's text root, JSONL or CSV, in the fields of a published data set."""

    source: Literal["file"]
    format: TaskFormat
    path: Path = Field(description="relative to the text root")
    name: Alias | None = Field(default=None, description="what the report calls it; null: the format")
    items: Annotated[int, Field(ge=2, le=MAX_ITEMS)] | None = Field(
        default=None, description="so many of them, drawn by the seed; null: all"
    )
    shots: Annotated[int, Field(ge=0, le=64)] = Field(default=0, description="solved examples before each item")
    examples: Path | None = Field(default=None, description="file of the same format that the examples stand first in")
    metric: TaskMetric | None = Field(default=None, description="what decides; null: the format's own")
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = Field(default=256, description="of a generated answer")
    passage: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="field of the rows; items where it is equal are tested together. Null: none are"
    )

    @property
    def title(self) -> str:
        """What the task is called in the report."""
        return self.name or self.format

    @model_validator(mode="after")
    def _fits(self) -> "FileTask":
        if self.metric is not None and self.metric not in METRICS[self.format]:
            message = f"{self.format} is scored by {' or '.join(METRICS[self.format])}, not by {self.metric}"
            raise broken(message, hint=TASKS_HINT)
        if bool(self.shots) != (self.examples is not None):
            message = "shots and examples go together: the file whose first items are shown, and how many"
            raise broken(message, hint=TASKS_HINT)
        return self


class HarnessTask(Contract):
    """A task of lm-evaluation-harness, by its own definition, over a file below the operator's text root.

    The harness makes the prompts, reads the answers and scores them; the models answer in our engine.
    """

    source: Literal["harness"]
    task: HarnessName = Field(description="the harness' name of one task; a group's members are tasks of their own")
    path: Path = Field(description="rows in the fields of the task's data set, JSONL, relative to the text root")
    name: Alias | None = Field(default=None, description="what the report calls it; null: the harness' name")
    items: Annotated[int, Field(ge=2, le=MAX_ITEMS)] | None = Field(
        default=None, description="so many of them, drawn by the seed; null: all"
    )
    shots: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None, description="solved examples before each item; null: as many as the definition says"
    )
    examples: Path | None = Field(
        default=None, description="file that they are from, chosen as the definition says; null: the definition's own"
    )
    metric: HarnessName | None = Field(default=None, description="what decides; null: the definition's first")
    filter: HarnessName | None = Field(
        default=None, description="which of the definition's filters reads a generated answer; null: the first"
    )
    max_tokens: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="of a generated answer; null: the definition's, or 256"
    )
    passage: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="field of the rows; items where it is equal are tested together. Null: none are"
    )

    @property
    def title(self) -> str:
        """What the task is called in the report."""
        return self.name or self.task

    @model_validator(mode="after")
    def _fits(self) -> "HarnessTask":
        if self.examples is not None and self.shots == 0:
            message = "no example is shown, and a file of examples is named: leave one of the two out"
            raise broken(message, hint=TASKS_HINT)
        return self


Task = Annotated[ShippedTask | FileTask | HarnessTask, Field(discriminator="source")]
MOST_TASKS: Final = 32


def told_apart(tasks: Sequence[ShippedTask | FileTask | HarnessTask]) -> None:
    """Raises ValueError if two tasks have one name."""
    twice = [name for name, count in Counter(task.title for task in tasks).items() if count > 1]
    if twice:
        message = f"two tasks are called {twice[0]}: give one of them another name"
        raise broken(message, hint=TASKS_HINT, at=("tasks",))


class HarnessDefinition(Contract):
    """The definition that a task's prompts and scoring come from."""

    task: str = Field(description="the name of the definition in lm-evaluation-harness")
    version: str = Field(description="of the harness")
    task_version: str | None = Field(description="of the definition, as the definition states it")
    shots: Count = Field(description="solved examples before each item")


class Chance(Contract):
    """Whether answers are better than guessing."""

    accuracy: float = Field(
        description=(
            "of uniform guessing, or of the most frequent right choice if all items have the same choices. Generated "
            "answers: 0. Harness tasks: of the most frequent right answer, or 1 / number of choices"
        )
    )
    p_reference: float = Field(
        description=("one-sided, exact: probability of at least as many right answers by guessing")
    )
    p_candidate: float
    reference_at_chance: bool
    candidate_at_chance: bool
