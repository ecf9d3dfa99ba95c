"""The published rule of near-lossless in a sweep's report, both halves: perplexity, and what tasks lose.

A degradation is the part of the reference's accuracy that is lost, (reference − candidate) / reference, below 0 if
some is gained. Intervals are 95 %, over items answered by both models.
"""

from typing import Final, Literal

from pydantic import Field, JsonValue

from app.contracts.base import Contract
from app.contracts.report import Count, Mean
from app.contracts.task import TaskFormat, TaskMetric

# "At most 5 % average downstream degradation".
MOST_LOST: Final = 0.05


class AnsweredTask(Contract):
    """A task at one setting of the knob: the same items, answered by both models."""

    name: str
    format: TaskFormat
    metric: TaskMetric
    items: Count
    reference: float = Field(description="accuracy of the reference")
    candidate: float = Field(description="accuracy of the candidate")
    harmful: Count = Field(description="reference right, candidate wrong")
    helpful: Count = Field(description="reference wrong, candidate right")
    loss: Mean | None = Field(
        description="degradation, with the score interval for the ratio of paired shares; null where the reference is "
        "at chance, so that nothing can be lost"
    )
    shortened: Count = Field(default=0, description="items whose beginning was cut off to fit the model's context")


class AnsweredSetting(Contract):
    """One setting of the knob at which the tasks were answered."""

    value: JsonValue
    tasks: tuple[AnsweredTask, ...]
    degradation: Mean | None = Field(
        description="mean of the tasks' losses, each task once; its interval is over items, the tasks being given; "
        "null where the reference is at chance on all of them"
    )
    within: bool | None = Field(description="whether the mean is within the rule's 5 %; null where there is none")
    decided: bool = Field(description="whether the whole interval is on that side of the 5 %")


class Setting(Contract):
    """A value of the knob. null is a value, too: of a group size it is one group per channel."""

    value: JsonValue


class NearLossless(Contract):
    """How far the knob may be turned by the whole rule.

    The settings that are near-lossless by perplexity are asked from the strongest down, until one is within 5 %.
    """

    limit: float = Field(default=MOST_LOST, description="on the average degradation")
    largest: Setting | None = Field(
        description="the strongest setting within both halves; null: there is none, or it was not reached"
    )
    limited_by: Literal["perplexity", "tasks", "nothing"] | None = Field(
        description="which half stops it: `tasks` where a setting within the perplexity half loses more; `nothing` "
        "where the strongest measured setting is within both; null where the tasks can tell nothing"
    )
    decided: bool = Field(
        description="whether the interval of every degradation that the answer rests on is on one side of 5 %, and "
        "that of every perplexity ratio on one side of its limit"
    )
    open_by_perplexity: tuple[JsonValue, ...] = Field(
        description="settings that the answer rests on whose perplexity ratio has no interval, or one that holds its "
        "limit. The answer rests on those up to `largest` and, if perplexity stops the knob, on those beyond it up to "
        "the first that is wholly beyond",
    )
    answered: tuple[AnsweredSetting, ...] = Field(description="in the order asked, strongest first")
    at_chance: tuple[str, ...] = Field(
        default=(), description="tasks on which the reference is at chance, which are left out of the mean"
    )
    unasked: Count = Field(
        default=0, description="weaker settings that were not asked, since so many had been that none was left to ask"
    )

    @property
    def open_by_tasks(self) -> tuple[JsonValue, ...]:
        """Settings that were asked whose degradation has an interval that holds the 5 %, in the order asked."""
        return tuple(one.value for one in self.answered if one.within is not None and not one.decided)
