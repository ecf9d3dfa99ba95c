"""The report of a tasks job, kind `tasks` of schema `hemostat.report/1`.

The common blocks are those of a compare job over `text`. All task results are paired by item: both models answer the
same items. A difference is candidate − reference in accuracy, so damage is negative. A flip is an item that only one of
the two models answers rightly. Intervals are 95 %.
"""

from typing import Final, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.report import (
    Blocks,
    Ci,
    ComparedReport,
    Count,
    Mean,
    Severity,
)
from app.contracts.task import Chance, HarnessDefinition, TaskFormat, TaskMetric

Outcome = Literal["worse", "better", "equivalent", "inconclusive", "at_chance"]


class Share(Contract):
    """A share of items, or a difference of two, with its interval."""

    mean: float
    ci: Ci


class MeasuredMetric(Contract):
    """One metric of both models."""

    reference: float
    candidate: float
    harmful: Count
    helpful: Count
    difference: Share = Field(description="candidate − reference; score interval for paired shares")


class MetricResult(MeasuredMetric):
    """One metric of a task."""

    metric: TaskMetric


class HarnessMetricResult(MeasuredMetric):
    """One metric of a task of the harness."""

    metric: str = Field(description="as the harness writes it: after a comma, the filter that read the answer")


class FlipCounts(Contract):
    """Items by the models that answer them rightly."""

    both_right: Count
    both_wrong: Count
    harmful: Count = Field(description="reference right, candidate wrong")
    helpful: Count = Field(description="reference wrong, candidate right")
    rate: Share = Field(description="flips in either direction; Wilson interval")


class Flipped(Contract):
    """An example of a flip. Text is null if it may not be stored."""

    item: str
    direction: Literal["harmful", "helpful"]
    prompt: str | None
    answer: str | None = Field(description="the right one")
    reference: str | None
    candidate: str | None


class McNemar(Contract):
    """Exact two-sided McNemar test that flips in both directions are equally likely, by passage if items share one."""

    p: float
    p_holm: float = Field(description="over the job's tasks, family-wise error")


class Equivalence(Contract):
    """Two one-sided tests that the difference is within ± margin (score tests for paired shares)."""

    margin: float
    p: float
    p_holm: float
    ci90: Ci = Field(description="90 % interval: equivalent at 5 % if it is within the margin")
    equivalent: bool = Field(description="p_holm < 0.05")


class Detectable(Contract):
    """Smallest difference that the exact McNemar test shows with 80 % power at `level`, computed before the run."""

    difference: float | None = Field(description="null: none, at this number of items and this flip rate")
    flip_rate: float = Field(description="the flip rate that this assumes")
    source: Literal["assumed", "predicted"] = Field(description="the source of that rate")
    at_measured_rate: float | None = Field(description="the same at the flip rate and design effect that were found")
    level: float = Field(
        description=(
            "5 % divided by the job's tasks: at this level Holm's correction rejects independently of the other tasks"
        )
    )


class FlipPrediction(Contract):
    """The flip rate that earlier runs of this service predict at this KL."""

    status: Literal["none", "few", "outside", "seen"]
    rate: float | None
    interval: Ci | None = Field(description="95 % prediction interval of the flip rate of a run of this many items")
    sentence: str


class SeenRun(Contract):
    """An earlier run, for the chart."""

    task: str
    kl: float
    rate: float
    items: Count


class FlipCurve(Contract):
    """The prediction over a range of KL, for another run of the job's first task with `items` items."""

    items: Count
    kl: tuple[float, ...]
    rate: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class NotFinite(Contract):
    """Tokens of choices for which a model gives no number (NaN or infinity). A model never takes a choice with such a
    token. Each model is judged by its own numbers."""

    positions: Count = Field(description="tokens of choices")
    items: Count = Field(description="items with such a choice")


# What is looked at for classes of tokens: the text of the right choice, what a right letter means, the file's
# right answer to what is generated, its reference solution, or, where none of these is known, the question.
AnswerText = Literal["right_choice", "lettered_choice", "key", "solution", "question"]
# Classes of fewer items are not tested.
FEWEST_CLASS_ITEMS: Final = 6


class ItemClass(Contract):
    """The items whose answer holds a token of one class. An item may be in several classes."""

    name: str
    title: str
    definition: str
    items: Count
    share: float = Field(description="share of the task's items")
    reference: Share = Field(description="accuracy; Wilson interval")
    candidate: Share
    difference: Share = Field(description="candidate − reference; score interval for paired shares")
    harmful: Count
    helpful: Count
    rate: Share = Field(description="flips in either direction, a share of the class's items; Wilson interval")
    rate_others: Share | None = Field(description="of all other items; null if there is none")
    share_of_flips: float | None = Field(description="share of the task's flips; null if nothing flips")
    fisher_p: float | None = Field(
        description=(
            "of equal flip rates in the class and the other items: Fisher's exact test, two-sided; null: too few "
            "items, or no others"
        )
    )
    fisher_p_holm: float | None = Field(description="adjusted over all classes of all tasks with a p-value")


class ItemClasses(Contract):
    """A task's items by the token classes of their answers."""

    where: AnswerText | None = Field(
        description=("the text that was classified; null if no text of the answers is known")
    )
    note: str = Field(description="the same in words; if nothing was classified, why")
    classes: tuple[ItemClass, ...] = Field(default=(), description="classes that are in some item, `none` last")
    absent: tuple[str, ...] = Field(default=(), description="titles of the classes that are in no item")


class PairedTask(Contract):
    """The same items answered by both models, for every source of tasks."""

    name: str
    items: Count
    passages: Count | None = Field(
        default=None,
        description=(
            "passages that the items share; McNemar's test, equivalence and intervals of differences are by passage. "
            "Null: items are independent"
        ),
    )
    fingerprint: str = Field(description="SHA-256 of items, shots and metric: the same task has the same")
    source_fingerprint: str = Field(
        description="the fingerprint of all items that these were drawn from; independent of the number drawn"
    )
    reference: Share
    candidate: Share
    difference: Share = Field(description="candidate − reference; score interval for paired shares")
    flips: FlipCounts
    examples: tuple[Flipped, ...]
    mcnemar: McNemar
    equivalence: Equivalence
    detectable: Detectable
    chance: Chance
    kl: Mean | None = Field(description="KL at the tokens of the answers; null for generated answers")
    prediction: FlipPrediction
    outcome: Outcome
    shortened: Count = Field(description="items whose beginning was cut off to fit the model's context")
    not_finite_reference: NotFinite | None = Field(
        default=None, description="of the reference; null for generated answers"
    )
    not_finite_candidate: NotFinite | None = Field(default=None, description="of the candidate, likewise")
    token_classes: ItemClasses = ItemClasses(where=None, note="")


class TaskResult(PairedTask):
    """One task."""

    format: TaskFormat
    metric: TaskMetric
    metrics: tuple[MetricResult, ...]


class HarnessTaskResult(PairedTask):
    """One task by a definition of lm-evaluation-harness."""

    harness: HarnessDefinition
    metric: str = Field(description="as the harness writes it: after a comma, the filter that read the answer")
    metrics: tuple[HarnessMetricResult, ...]


AnyTaskResult = TaskResult | HarnessTaskResult


class TasksReport(Blocks, ComparedReport):
    """What a tasks job found."""

    kind: Literal["tasks"] = "tasks"
    severity: Severity = Field(description="of the KL over the text")
    tasks: tuple[TaskResult, ...]
    harness_tasks: tuple[HarnessTaskResult, ...] = Field(
        default=(), description="tasks by definitions of lm-evaluation-harness; p-values are adjusted over both lists"
    )
    unscored: tuple[str, ...] = Field(
        default=(),
        description=(
            "requested tasks that are in neither list. Their definition's own code fails on an answer, or grades it "
            "between right and wrong"
        ),
    )
    class_multiplicity: str = Field(
        default="", description="how many token classes of answers were tested, and what their p-values mean"
    )
    seen: tuple[SeenRun, ...] = Field(description="earlier runs that predictions rest on")
    curve: FlipCurve | None

    @property
    def results(self) -> tuple[AnyTaskResult, ...]:
        """All tasks: ours, then the harness'."""
        return (*self.tasks, *self.harness_tasks)
