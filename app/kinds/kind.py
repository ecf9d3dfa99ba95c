"""What the service knows of a kind of job."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

from pydantic import create_model

from app.contracts.report import Report
from app.contracts.request import JobRequest, Submission


@dataclass(frozen=True)
class Kind:
    """A kind of job: what it asks, what it reports, and who does the rest.

    Functions are named as "module:function": the front end and a worker each load only what they call.
    """

    name: str
    request: type[JobRequest]
    report: type[Report]

    @cached_property
    def submission(self) -> type[Submission]:
        """The body of a submission: the request, and `dry_run`."""
        made = create_model(
            f"{self.name.capitalize()}Submission", __base__=(self.request, Submission), __doc__=Submission.__doc__
        )
        return cast(type[Submission], made)
