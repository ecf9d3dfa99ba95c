"""A kind of job that no file of app or workers names: the share of tokens whose KL is above a limit."""

from typing import Annotated, Literal

from pydantic import Field

from app.contracts.metric import COMPARISON, Metric
from app.contracts.report import Report
from app.contracts.request import JobRequest
from app.kinds.kind import Kind, Phase
from app.reports.blocks import Block, Note, Section
from app.reports.common import closing, headline, title


class TailRequest(JobRequest):
    """Find the share of tokens whose KL is above a limit."""

    kind: Literal["tail"]
    above: Annotated[float, Field(gt=0)] = Field(default=1.0, description="nats per token")


class TailReport(Report):
    kind: Literal["tail"] = "tail"
    share: float


def answer(report: TailReport) -> str:
    return f"{100 * report.share:.1f} % above"


def blocks(report: TailReport) -> list[Block]:
    tail = Section("tail", "Tail", (Note(f"{answer(report)} the limit.", brief=True),))
    return [title(report, heading=answer(report)), headline(report), tail, *closing(report)]


KIND = Kind(
    request=TailRequest,
    report=TailReport,
    question="How many tokens are hurt?",
    example={"kind": "tail", "reference": {"model": "m"}, "candidate": {"model": "n"}, "above": 2},
    handler="tests.support.tail_job:tail",
    answer=f"{__name__}:answer",
    view=f"{__name__}:blocks",
    phases={"tail": Phase("counting the tail", unit="token")},
    metrics=(Metric("tail_ratio", "gauge", "Share of tokens whose KL is above the limit.", COMPARISON),),
)
