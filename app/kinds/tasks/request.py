"""The request of a `tasks` job."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.request import JobRequest, Thresholds
from app.contracts.task import MOST_TASKS, ShippedTask, Task, told_apart


class TasksRequest(JobRequest):
    """Answer items with both models, and compare the answers in pairs.

    KL is measured beside, over `text` with `window`, as a compare job does.
    """

    kind: Literal["tasks"]
    tasks: Annotated[tuple[Task, ...], Field(min_length=1, max_length=MOST_TASKS)] = (ShippedTask(source="shipped"),)
    margin: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.02, description="a difference in accuracy smaller than this is taken as none: 0.02 is two points"
    )
    shown: Annotated[int, Field(ge=0, le=50)] = Field(default=5, description="examples of flips in either direction")
    thresholds: Thresholds = Thresholds()
    store_text: bool | None = Field(
        default=None,
        description="Keep the text of flipped items in the report, and what the models said of every item in "
        "answers.jsonl; null: of shipped items only.",
    )

    @model_validator(mode="after")
    def _told_apart(self) -> "TasksRequest":
        told_apart(self.tasks)
        return self
