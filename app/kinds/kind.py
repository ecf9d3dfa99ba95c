"""What the service knows of a kind of job."""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any, cast

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
    # (request, Checked of `app.kinds.preflight`): raises `HemostatError` for what the kind cannot do.
    check: str = ""
    # (request, Cost of `app.kinds.estimates`): changes the cost.
    cost: str = ""

    def call(self, of: str, *given: Any) -> Any:
        """What the function returns that is named under `of`; None where the kind has none."""
        return _loaded(name)(*given) if (name := getattr(self, of)) else None

    @cached_property
    def submission(self) -> type[Submission]:
        """The body of a submission: the request, and `dry_run`."""
        made = create_model(
            f"{self.name.capitalize()}Submission", __base__=(self.request, Submission), __doc__=Submission.__doc__
        )
        return cast(type[Submission], made)


@cache
def _loaded(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)
