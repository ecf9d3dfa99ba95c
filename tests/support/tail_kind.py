"""A kind of job that no file of app or workers names: the share of tokens whose KL is above a limit."""

from typing import Annotated, Literal

from pydantic import Field

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.report import Report
from app.contracts.request import JobRequest
from app.kinds.estimates import Cost
from app.kinds.kind import Kind, Phase
from app.kinds.preflight import Checked
from app.reports.blocks import Block, Note, Section
from app.reports.common import closing, headline, title


class TailRequest(JobRequest):
    """Find the share of tokens whose KL is above a limit."""

    kind: Literal["tail"]
    above: Annotated[float, Field(gt=0)] = Field(default=1.0, description="nats per token")


class TailReport(Report):
    kind: Literal["tail"] = "tail"
    share: float


def check(request: TailRequest, checked: Checked) -> None:
    if request.above > 100:
        raise HemostatError(ErrorCode.INVALID_REQUEST, f"no KL reaches {request.above:g} nats", pointer="/above")


def cost(request: TailRequest, cost: Cost) -> None:
    cost.assumptions.append(f"tokens above {request.above:g} nats are counted")


def answer(report: TailReport) -> str:
    return f"{100 * report.share:.1f} % above"


def blocks(report: TailReport) -> list[Block]:
    tail = Section("tail", "Tail", (Note(f"{answer(report)} the limit.", brief=True),))
    first = title(report, what="tail report", heading=answer(report))
    return [first, headline(report, chart_title="Excess KL"), tail, *closing(report)]


EXAMPLE = {"kind": "tail", "reference": {"model": "m"}, "candidate": {"model": "n"}, "above": 2}
KIND = Kind(
    name="tail",
    request=TailRequest,
    report=TailReport,
    question="How many tokens are hurt?",
    example=EXAMPLE,
    handler="tests.support.tail_job:tail",
    check=f"{__name__}:check",
    cost=f"{__name__}:cost",
    answer=f"{__name__}:answer",
    view=f"{__name__}:blocks",
    phases={"tail": Phase("counting the tail", unit="token")},
)
