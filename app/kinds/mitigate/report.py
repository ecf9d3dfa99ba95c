"""The report of a mitigate job, kind `mitigate` of schema `hemostat.report/1`.

The common blocks describe the recommended model on the test documents; if nothing is recommended, the candidate. `raw`
has the candidate's blocks at the same positions. `front` comes from the single reading of the test documents, `damage`
and `trials` from the documents to choose by. Saved is KL of the candidate − KL of the treated model, paired by
position, in nats per token. Seconds and tokens/s are those of this machine.
"""

from typing import Final, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.profile import DocumentSet
from app.contracts.report import (
    Blocks,
    Count,
    Mean,
    Report,
    Severity,
)
from app.kinds.mitigate.request import TreatmentName

# Less than this is no damage: nats per token.
NO_DAMAGE: Final = 1e-6

Answer = Literal["treated", "no_damage", "no_damage_that_matters", "does_not_hold", "nothing_tried", "nothing_helps"]
Recipe = tuple[dict[str, object], ...]
Outcome = Literal["front", "dominated", "no_gain", "over_budget", "promoted", "not_promoted", "not_applicable"]


class Limits(Contract):
    """The budget as it was applied. Null: no limit."""

    bytes: Count | None
    bits_per_weight: float | None
    added_latency: float | None
    by_default: bool = Field(description="whether `bytes` is the default: a quarter more than the candidate's")


class Part(Contract):
    """A part of the model, and the nats saved if only this part is the reference's again."""

    name: str
    layers: tuple[Count, ...]
    saved: Mean | None = Field(description="on documents to choose by; null if it was not measured")
    reconstruction_error: float | None = Field(description="‖W − W'‖ / ‖W‖ of the part; null if it is not known")
    share: float | None = Field(description="of the sum of the parts' savings; if none was measured, of the error")


class Damage(Contract):
    """The damage before treatment."""

    kl: Mean = Field(description="of the candidate, on the documents to choose by")
    parts: tuple[Part, ...]
    how: Literal["restored", "reconstruction_error", "unknown"] = Field(
        description="how the parts' shares were found: each part restored in turn, or from the weights only"
    )
    note: str = ""


class Treatment(Contract):
    """One treatment with its settings."""

    name: TreatmentName
    knobs: dict[str, float | int | str | bool | None]


class Trial(Contract):
    """One recipe that was made and measured, or refused."""

    number: Count
    treatments: tuple[Treatment, ...]
    recipe: Recipe
    rung: Literal["cheap", "full"] = Field(description="cheap: less calibration data, no training, fewer documents")
    expected_saved: float = Field(description="the expected saving before the trial, nats per token")
    outcome: Outcome
    reason: str = Field(default="", description="why it was refused, or which limit it breaks")
    refused_code: str = Field(default="", description="the error's code, if a refusal was foreseen")
    bytes: Count | None = None
    kl: Mean | None = None
    saved: Mean | None = None
    seconds: float | None = Field(default=None, description="to make and to measure it")


class Unhelpful(Contract):
    """A treatment that did not help, or could not be tried, and why."""

    treatment: TreatmentName
    reason: str
    best_saved: float | None = Field(
        default=None, description=("largest saving of a trial with only this treatment, nats per token")
    )


class FrontPoint(Contract):
    """A recipe that no other recipe beats in bytes and KL at once. It was chosen before the test was read."""

    recipe: Recipe
    treatments: tuple[Treatment, ...] = Field(description="empty: the candidate as it is")
    bytes: Count
    bits_per_weight: float
    kl: Mean = Field(description="on the test documents")
    saved: Mean | None = Field(description="on the test documents; null for the candidate itself")
    tokens_per_second: float = Field(description="the median of a few passes")
    tokens_per_second_range: tuple[float, float] | None = Field(
        default=None, description="of the slowest and the fastest of these passes"
    )
    added_latency: float | None = Field(
        description=("extra time per token over the candidate's, as a share of the candidate's")
    )
    within_budget: bool
    recommended: bool
    weights_fingerprint: str


class Seal(Contract):
    """How the test documents were kept apart."""

    frozen: str = Field(description="hash of front, recommendation and rule, taken before the test was read")
    opened_at: float


class MitigateReport(Blocks, Report):
    """What a mitigate job found."""

    kind: Literal["mitigate"] = "mitigate"
    severity: Severity = Field(description="of the recommended model's KL on the test documents")
    raw: Blocks
    raw_severity: Severity
    answer: Answer = Field(
        description=(
            "`treated`: the recommended recipe saves more than 0 on the test for sure. `does_not_hold`: the chosen "
            "recipe does not. `no_damage_that_matters`: the candidate loses less than mild damage for sure"
        )
    )
    saved: Mean | None = Field(description="by the recommended recipe on the test; null if nothing is recommended")
    removed: Mean | None = Field(
        default=None, description="by the recommended recipe, as a share of the candidate's KL on the test"
    )
    front: tuple[FrontPoint, ...] = Field(description="from few bytes to many")
    recommended: Recipe | None = Field(
        description="a recipe for compare or deploy, on the candidate's alias; null: leave the candidate as it is"
    )
    rule: str = Field(description="how the recommended recipe was chosen, in words")
    budget: Limits
    candidate_bytes: Count
    damage: Damage
    trials: tuple[Trial, ...] = Field(description="in the order in which they were made")
    unhelpful: tuple[Unhelpful, ...]
    profiles: tuple[str, ...] = Field(default=(), description="calibration profiles of the candidate that exist")
    sets: tuple[DocumentSet, ...]
    seal: Seal

    @property
    def helped(self) -> bool:
        """Whether a recipe is recommended."""
        return self.answer == "treated"
