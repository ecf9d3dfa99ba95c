"""The kinds of jobs, one line each: `app.kinds.NAME` has what belongs to a kind."""

from functools import cache, reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter

from app.contracts.report import Report
from app.contracts.request import JobRequest, Submission
from app.kinds.kind import Kind

# As they are met: measure, search for causes and limits, repair.
_NAMES: Final = (
    "compare",
    "attribute",
    "sweep",
    "surface",
    "trajectory",
    "tasks",
    "mitigate",
    "calibrate",
)
KINDS: Final[dict[str, Kind]] = {name: import_module(f"app.kinds.{name}").KIND for name in _NAMES}

if TYPE_CHECKING:
    JobKind = str
else:
    JobKind = Literal[_NAMES]


def requests() -> TypeAdapter[JobRequest]:
    """A request of any kind."""
    return _by_kind(tuple(kind.request for kind in KINDS.values()))


def submissions() -> TypeAdapter[Submission]:
    """The body of a submission of any kind."""
    return _by_kind(tuple(kind.submission for kind in KINDS.values()))


def reports() -> TypeAdapter[Report]:
    """A report of any kind."""
    return _by_kind(tuple(kind.report for kind in KINDS.values()))


def kind_of(name: object) -> Kind | None:
    """The kind of that name, which comes from a client and may be anything."""
    return KINDS.get(name) if isinstance(name, str) else None


@cache
def _by_kind(models: tuple[Any, ...]) -> TypeAdapter[Any]:
    any_of: Any = Annotated[reduce(or_, models), Field(discriminator="kind")]
    return TypeAdapter(any_of)
