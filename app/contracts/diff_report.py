"""What `hemostat diff` answers, schema `hemostat.diff/1`: candidates of several compare reports, side by side.

Reports are lettered a, b, c in the order in which they were given. A difference is the later report minus the earlier
one at the same positions: below 0 is a smaller loss. Intervals are 95 %, clustered as `Mean.clusters` says. `p` is
two-sided, for no difference. `p_adjusted` has Holm's correction over all tests of that measure.
"""

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.distances import DISTANCES
from app.contracts.notice import Notice
from app.contracts.report import Count, Mean, Number, Severity

SCHEMA: Final = "hemostat.diff/1"
MOST: Final = 20  # reports that are compared with each other
UNITS: Final[dict[str, str]] = {distance.name: distance.unit for distance in DISTANCES} | {
    "log_perplexity": "nats",
    "top1_agreement": "share",
}
MEASURES: Final = tuple(UNITS)
if TYPE_CHECKING:
    Measure = str
else:
    Measure = Literal[MEASURES]


class Mismatch(Contract):
    """A part of the protocol that two reports do not share."""

    reports: tuple[str, str] = Field(description="their letters")
    what: str
    one: str
    other: str


class Ranked(Contract):
    """One report, by the ranking measure, over the positions that all reports share."""

    letter: str
    job: str
    candidate: str
    severity: Severity
    classes: tuple[Severity, ...] = Field(
        default=(), description="the classes that the verdict names if it is not conclusive, mildest first"
    )
    bytes: Count | None
    bits_per_weight: float | None
    value: Mean = Field(description="of the measure that ranks")
    perplexity: Number
    best_rank: Count = Field(description="1 + the number of reports that are better for sure")
    worst_rank: Count = Field(description="the number of reports − the number that are worse for sure")
    nonfinite_positions: Count = Field(
        description=("of the shared positions, in this report; left out for every report")
    )


class Difference(Contract):
    """The later report minus the earlier one, in one measure, over one slice of the positions."""

    measure: Measure
    unit: str
    domain: str | None = Field(default=None, description="null: all domains")
    token_class: str | None = Field(default=None, description="null: tokens of all classes and of none")
    title: str = Field(default="", description="of the token class, for people")
    tokens: Count
    documents: Count
    difference: Mean
    p: Number
    p_adjusted: Number
    verdict: Literal["better", "worse", "no difference shown", "cannot be judged", "equal"] = Field(
        description=(
            "of the later report, after correction. `equal`: no position differs. `cannot be judged`: fewer than six "
            "documents, or too little text for an interval"
        )
    )


class Pair(Contract):
    """Two reports against each other."""

    earlier: str
    later: str
    differences: tuple[Difference, ...] = Field(description="every measure, over all domains together")
    domains: tuple[Difference, ...] = Field(description="the ranking measure, per domain")
    token_classes: tuple[Difference, ...] = Field(
        default=(), description="the ranking measure, per token class of the compared positions; classes overlap"
    )


class DiffReport(Contract):
    """Everything that was found."""

    schema_: Literal["hemostat.diff/1"] = Field(default=SCHEMA, alias="schema")
    comparable: bool
    label: str = Field(description="empty if the reports are comparable; else what the numbers are worth")
    mismatches: tuple[Mismatch, ...]
    by: Measure
    tokens: Count = Field(description="positions that all reports scored, with finite logits in all")
    documents: Count
    ranking: tuple[Ranked, ...] = Field(description="best first")
    ties: tuple[tuple[str, str], ...] = Field(
        description="pairs in which neither report is shown to be better; `pairs` has their numbers"
    )
    pairs: tuple[Pair, ...]
    token_classes_note: str = Field(
        default="", description="token classes that have no compared position, or fewer than in a single report"
    )
    verdict: str
    method: str
    warnings: tuple[Notice, ...] = ()

    model_config = Contract.model_config | {"populate_by_name": True, "serialize_by_alias": True}
