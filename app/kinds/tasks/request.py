"""The request of a `tasks` job."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.option import Option
from app.contracts.request import JobRequest
from app.contracts.task import MOST_TASKS, ShippedTask, Task, told_apart


class TasksRequest(JobRequest):
    """Answer items with both models, and compare the answers in pairs.

    KL is measured beside, over `text` with `window`, as a compare job does.
    """

    kind: Literal["tasks"]
    tasks: Annotated[tuple[Task, ...], Field(min_length=1, max_length=MOST_TASKS), Option("--task", shape="task")] = (
        Field(default=(ShippedTask(source="shipped"),), description="what both models answer; default: shipped")
    )
    margin: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.02, description="a difference in accuracy smaller than this is taken as none: 0.02 is two points"
    )
    shown: Annotated[int, Field(ge=0, le=50)] = Field(default=5, description="examples of flips in either direction")
    store_text: bool | None = Field(
        default=None,
        description="Keep the text of flipped items in the report, and what the models said of every item in "
        "answers.jsonl; default: of shipped items only.",
    )

    @model_validator(mode="after")
    def _told_apart(self) -> "TasksRequest":
        told_apart(self.tasks)
        return self
