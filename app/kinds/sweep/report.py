"""The report of a sweep job, kind `sweep` of schema `hemostat.report/1`.

`points` are in the order of strength, weakest first; `knob.order` defines it. Every interval is 95 %. It resamples
documents, or windows if there are fewer than six documents, jointly at all points. `severity` and `decision` are those
of the strongest setting that was measured. `threshold` is fitted to the perplexity, `threshold_kl` to the mean KL. Both
are null if the knob removes no share of the model, or the curve has too few points: `no_threshold` says why.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue

from app.contracts.base import Contract
from app.contracts.notice import Notice
from app.contracts.report import (
    Ci,
    Count,
    Divergence,
    KernelTerm,
    Mean,
    Number,
    Perplexity,
    Report,
    Severity,
    SeverityVerdict,
)

Answer = Literal["transition", "no transition in range", "not identifiable"]
_PUBLISHED: Final = "power_law_then_exponential"
_ILL_FITTING: Final = 0.05
OpenCi = tuple[Number, Number]
Order = Literal["share", "rising", "falling", "around", "unknown", "given"]


class SweptKnob(Contract):
    """The field of the recipe that the sweep changes."""

    step: Count = Field(description="of the candidate's recipe, counted from 0")
    type: str = Field(description="of that step")
    field: str
    values: tuple[JsonValue, ...] = Field(description="all that were asked for, in the order asked")
    share: str | None = Field(description="how s, the share removed, follows from the value; null: it does not")
    axis: Literal["value", "s", "order"] = Field(
        description="the unit of the limits' `at`: the knob's own value, s, or the place in the order of strength"
    )
    order: Order = Field(
        description=(
            "the order of strength. `share`: rising s, at equal s the measured damage. `rising`, `falling`: the "
            "value. `around`: the distance from `neutral`. `given`: as asked for. `unknown`: not known beforehand, "
            "or all remove the same share; points are in the order of measured damage, without limits"
        ),
    )
    neutral: Number = Field(
        default=None, description="the value at which the knob changes nothing, if damage grows on both sides of it"
    )


class SweepPoint(Contract):
    """One setting. Blocks are null if the model cannot take it (`refused` says why)."""

    value: JsonValue
    s: Number = Field(description="share of the model removed; null if the knob removes nothing")
    divergence: Divergence | None
    perplexity: Perplexity | None
    excess_kl: Mean | None = Field(description="mean KL minus noise floor, nats per token")
    top1_agreement: Mean | None
    severity: Severity | None
    classes: tuple[Severity, ...] = Field(description="every class that the interval touches")
    nonfinite_positions: Count
    bytes: Count | None = Field(description="of the whole model, packed")
    bits_per_weight: Number
    weights_fingerprint: str | None
    seconds_making: float
    seconds_measuring: float
    warnings: tuple[Notice, ...] = ()
    refused: str = ""
    refused_code: str = Field(default="", description="the error's code, if the refusal was foreseen")
    by: str = Field(description="the process that measured it")
    kernel_term: KernelTerm | None = Field(
        default=None,
        description="the part of the KL that other kernels add, if the point is packed; else null",
    )
    no_kernel_term: str = Field(
        default="", description=("why a packed point has no kernel term; empty for every other point")
    )


class KneeInterval(Contract):
    """How the interval of s0 was found."""

    confidence: float
    resampled: Literal["documents", "residuals"] = Field(
        description="documents: whole documents, or whole windows if there are fewer than six documents"
    )
    searched: Ci


class TransitionTest(Contract):
    """p-value of the hypothesis that there is no transition: the largest over the forms without one."""

    p: float
    level: float
    power_law: float
    exponential: float
    line: float = Field(description="of a line in the measured quantity itself")

    @property
    def likeliest(self) -> str:
        """The form without a transition that the test rejects least."""
        found = {"power_law": self.power_law, "exponential": self.exponential, "line": self.line}
        return max(found, key=lambda name: found[name])


class Rival(Contract):
    """Another form fitted to the same points."""

    form: str
    params: dict[str, float]
    log_sse: float
    aicc: Number
    delta_aicc: Number = Field(
        description=("its AICc minus that of the published form; below 0: it describes the curve better")
    )
    left_out_error: Number = Field(
        description=(
            "root mean square error of ln y at left-out points. The fit to all other points predicts each. Null: too "
            "few points for the form's free coefficients"
        )
    )
    transition_at: Number


class Threshold(Contract):
    """The published form fitted to the points. `s0`, `params` and `log_sse` are always its own, even if it is not
    identifiable or a rival wins (`form`). docs/threshold.md defines each field."""

    of: Literal["perplexity", "kl"]
    s0: float
    ci: Ci
    value: Number = Field(description="the knob's value at s0, interpolated between measured ones")
    value_ci: Ci | None
    form: str
    bounds: dict[str, tuple[Number, Number]] = Field(
        description=(
            "bounds of the fit, [low, high] of each coefficient. Null: that side is open; of s0, the end of the "
            "measured range. Requested bounds hold for the perplexity; for KL only those of s0 hold"
        )
    )
    identifiable: bool
    rivals: tuple[Rival, ...]
    answer: Answer
    reasons: tuple[str, ...]
    warnings: tuple[Notice, ...]
    params: dict[str, float]
    log_sse: float
    aicc: Number
    left_out_error: Number = Field(description="of the published form, defined as for a rival")
    at_bounds: tuple[str, ...]
    points: Count
    interval: KneeInterval
    transition_test: TransitionTest
    lack_of_fit: Number
    shown_by_rival: bool = Field(
        description="whether a rival shows a transition although the published form's own test finds none"
    )

    @property
    def turn_shown(self) -> bool:
        """Whether a transition was shown, wherever it is: more points than free coefficients, and p at the level or
        below or another form that shows it."""
        return self._tested and (self.transition_test.p <= self.transition_test.level or self.missed)

    @property
    def missed(self) -> bool:
        """Whether another form shows a transition although the published form's own test finds none."""
        return self._tested and self.shown_by_rival

    @property
    def ill_fitting(self) -> bool:
        """Whether the residuals reject the published form at 5 %: its s0 is then its own account of the curve."""
        return self.lack_of_fit is not None and self.lack_of_fit <= _ILL_FITTING

    @property
    def form_turns_at(self) -> float | None:
        """The share removed at which the best form turns; null if it has no transition."""
        places = {_PUBLISHED: self.s0} | {rival.form: rival.transition_at for rival in self.rivals}
        return places.get(self.form)

    @property
    def _tested(self) -> bool:
        fixed = sum(low is not None and low == high for low, high in self.bounds.values())
        return self.points > len(self.params) - fixed

    @property
    def unjudged(self) -> tuple[str, ...]:
        """The forms that too few points leave without AICc; where there are any, none is called the best."""
        own = () if self.aicc is not None else (_PUBLISHED,)
        return (*own, *(rival.form for rival in self.rivals if rival.aicc is None))


class Setting(Contract):
    """A value of the knob. Null is a value too: as a group size it means one group per channel."""

    value: JsonValue


class Limit(Contract):
    """How far the knob may be turned before a quantity passes a limit."""

    limit: float = Field(description="near-lossless: rise of ln perplexity; mild: excess KL in nats per token")
    largest: Setting | None = Field(
        description=(
            "the strongest measured setting that is within the limit together with every weaker one; null: not even "
            "the weakest is"
        )
    )
    at: Number = Field(
        description=(
            "the place at which the limit is passed, interpolated; before a collapse, the last finite setting. Null: "
            "outside the measured settings"
        )
    )
    ci: OpenCi | None = Field(
        description=(
            "95 % interval of `at`, weaker end first; null: no data. An end that is null is outside the measured "
            "settings. Between two settings the curve is not measured: the interval includes the whole gap. If the "
            "knob removes a share, it starts at the straight line between them"
        )
    )


class SweepReport(Report):
    """What a sweep found."""

    kind: Literal["sweep"] = "sweep"
    severity: Severity = Field(description="of the strongest setting that was measured")
    decision: SeverityVerdict = Field(description="on the strongest setting that was measured")
    nonfinite_positions: Count = Field(description="at the strongest setting that was measured")
    knob: SweptKnob
    reference_perplexity: Number
    points: Annotated[tuple[SweepPoint, ...], Field(min_length=1)]
    threshold: Threshold | None
    threshold_kl: Threshold | None
    no_threshold: str = Field(default="", description="why a threshold is missing; empty if none is missing")
    near_lossless: Limit | None = Field(
        description="by the published rule on perplexity. Its KL may be severe. Null: no finite perplexity, or no "
        "known order of strength"
    )
    largest_mild: Limit | None = Field(
        description=(
            "by the upper limit of the excess KL. Null: a single window of text gives no interval, or the order of "
            "strength is not known"
        )
    )

    @property
    def measured(self) -> tuple[SweepPoint, ...]:
        """The points that the model takes, weakest first."""
        return tuple(point for point in self.points if not point.refused)
