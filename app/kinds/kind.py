"""What the service knows of a kind of job."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pkgutil import resolve_name
from typing import Any, cast, get_args

from pydantic import create_model

from app.contracts.metric import Metric
from app.contracts.notice import Notices
from app.contracts.report import Report
from app.contracts.request import JobRequest, Submission


@dataclass(frozen=True)
class Phase:
    """A phase of a job, in words that fit into a line of 80 columns beside bar, counts and time.

    It counts `unit`s, each of so many `steps`.
    The steps of a `share` are parts of one thing, and mean nothing to people.
    """

    words: str
    unit: str = "step"
    steps: int = 1
    share: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of job: what it asks, what it reports, and who does the rest.

    Functions are named as "module:function": the front end and a worker each load only what they call.
    """

    request: type[JobRequest]
    report: type[Report]
    # What its example asks, and the example's body.
    question: str
    example: Mapping[str, Any]
    # (request, JobContext, EngineRoom) -> report, in a worker's child process.
    handler: str
    # report -> its blocks, which every renderer shows.
    view: str
    # (request, JobContext, EngineRoom): takes parts of another worker's running job off it; "": no job is shared.
    helper: str = ""
    # (request, Checked of `app.kinds.preflight`): raises `HemostatError` for what the kind cannot do.
    check: str = ""
    # (request, Cost of `app.kinds.estimates`): changes the cost.
    cost: str = ""
    # report -> the few words that its page is titled with and that lists lead with; "": the class is the answer.
    answer: str = ""
    # What the class is of, if not of the candidate as it is.
    class_of: str = ""
    # How many knobs of the candidate's recipe it turns, and what to do if there are more or fewer.
    knobs: int = 0
    more_knobs: str = "give the others one value"
    fewer_knobs: str = ""
    # The rules of `--fail-on`, and (report, rule) -> Outcome of `app.verdicts`.
    rules: type[StrEnum] | None = None
    judge: str = ""
    # (report, url) -> commands that follow it; (Client, report, path of its page, url=) -> lines that end its command.
    next_commands: str = ""
    onwards: str = ""
    # Its own phases, by name; `app.web.phases` has those of several kinds.
    phases: Mapping[str, Phase] = field(default_factory=dict)
    # What limits or spoils its reports.
    notices: type[Notices] | None = None
    # What a worker exports of its jobs: a job sends values by name (`JobContext.observe`).
    metrics: tuple[Metric, ...] = ()

    @property
    def name(self) -> str:
        """What requests and reports name it: the one value of their field `kind`."""
        name: str
        (name,) = get_args(self.request.model_fields["kind"].annotation)
        return name

    def call(self, of: str, *given: Any) -> Any:
        """What the function returns that is named under `of`; None if the kind has none."""
        return resolve_name(name)(*given) if (name := getattr(self, of)) else None

    @cached_property
    def submission(self) -> type[Submission]:
        """The body of a submission: the request, and `dry_run`."""
        made = create_model(
            f"{self.name.capitalize()}Submission", __base__=(self.request, Submission), __doc__=Submission.__doc__
        )
        return cast(type[Submission], made)
