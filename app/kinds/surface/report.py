"""The report of a surface job, kind `surface` of schema `hemostat.report/1`.

Two knobs of the candidate's recipe are turned together; a setting is a value of each. A value is null if the knob's
step is left out (with two knobs in one step: if it is at its first value). The common blocks describe one setting that
changes the model: the one of fewest bytes whose loss is within the chosen loss for sure. If there is none, they
describe the setting of least loss, and nothing is recommended. Interactions and effects of the order are differences of
ln PPL in nats per token, paired by position.
"""

from typing import Literal

from pydantic import Field, JsonValue

from app.contracts.base import Contract
from app.contracts.report import (
    ComparedReport,
    Count,
    KernelTerm,
    Mean,
    Number,
    Severity,
)

Order = Literal["as given", "reversed"]
Measure = Literal["kl", "perplexity_ratio", "perplexity"]
Storage = Literal["sparse", "dense"]
Kind = Literal["no_departure_shown", "additive_within_margin", "compounds", "overlaps"]


class SurfaceKnob(Contract):
    """One knob: which field of which step, and its settings from the mildest (left out) on."""

    step: Count = Field(description="index in the recipe as it was given")
    type: str
    field: str
    values: tuple[JsonValue, ...] = Field(description="the first is null if the step is left out there")
    zero: Number = Field(
        description=(
            "the place of a left-out step on the knob's own axis: 0 for a share, the source's bits for bits. Null: "
            "no such place"
        )
    )


class SurfacePoint(Contract):
    """One setting, measured against the reference. `first` and `second` are indices into the knobs' values."""

    first: Count
    second: Count
    order: Order
    recipe: tuple[dict[str, object], ...]
    refused: str = Field(default="", description="why the model cannot take it; all other fields are then empty")
    refused_code: str = Field(default="", description="the error's code, if the refusal was foreseen")
    bytes: Count | None = Field(
        description=(
            "of the whole model, as its manifest counts: zeros take as much as other weights. Settings of equal "
            "weights have the same count, the smallest of them"
        )
    )
    sparse_bytes: Count | None = Field(
        description=(
            "without the zeros of pruned weights, plus one bit per weight; equal weights have the same count here too"
        )
    )
    bits_per_weight: float | None
    weights_fingerprint: str | None
    kl: Mean
    perplexity: Number
    perplexity_ratio: Mean
    top1_agreement: Mean
    severity: Severity | None = Field(description="the worst class that the excess KL's interval touches")
    loss: Mean = Field(description="in the contour's measure")
    within: Literal["yes", "no", "undecided"] = Field(description="whether the loss is within the chosen one")
    nonfinite_positions: Count = 0
    kernel_term: KernelTerm | None = Field(
        default=None,
        description="the part of the KL that other kernels add, if the point is packed; else null",
    )
    no_kernel_term: str = Field(
        default="", description=("why a packed point has no kernel term; empty for every other point")
    )


class Interaction(Contract):
    """I = ln PPL(p,q) − ln PPL(p,0) − ln PPL(0,q) + ln PPL(0,0). 0 if damages add up; above 0 if they compound."""

    first: Count
    second: Count
    order: Order
    nats: Mean
    kind: Kind = Field(
        description=(
            "compounds or overlaps if p is below 0.05. Else additive_within_margin if the whole 95 % interval is "
            "within the report's margin on either side of 0. Else no_departure_shown: the text is too short to show "
            "an interaction or to exclude one"
        )
    )
    p: Number = Field(
        description="of I = 0, after Holm's correction over all cells of the surface (of the domain, of the class)"
    )


class Limit(Contract):
    """How far one knob goes at a setting of the other before the chosen loss is passed."""

    knob: Literal["first", "second"] = Field(description="the knob that is turned")
    at: Count = Field(description="index of the other knob's value")
    place: Number = Field(
        description=(
            "along the turned knob's values, by index; null: not passed in the range. If it is 0 and `largest` is "
            "null, the first value already loses more. If both are 0, the first value is within, and the next cannot "
            "be made or has no finite logits"
        )
    )
    value: Number = Field(description="the knob's value there, linear between neighbours; null if it has none")
    ci: tuple[Number, Number] | None = Field(
        description=(
            "95 % interval of `value`, clusters resampled; null: fewer than six clusters. A null end is beyond the "
            "range. It is the interval of `place` if a setting is no number and has no place on the knob's axis. "
            "Page and terminal then show its ends as values. It contains every setting whose own interval contains "
            "the chosen loss, up to the first setting that is beyond it for sure. Between two settings the loss is "
            "not measured: the interval includes the whole gap. If the knob removes a share and both settings are "
            "numbers, it starts at the straight line between them. This needs a KL at the milder setting of 0 (the "
            "unmodified model), or above a thousandth of the chosen loss"
        )
    )
    largest: Count | None = Field(
        description="index of the last setting before the first whose mean loss is above the chosen loss; null: none"
    )


class Contour(Contract):
    """The line of the chosen loss."""

    measure: Measure
    level: float = Field(description="nats of KL, ratio of perplexities, or perplexity")
    limits: tuple[Limit, ...]
    lines: tuple[tuple[tuple[float, float], ...], ...] = Field(
        description="(place of the first knob, place of the second) along the line, by index of the values"
    )


class PathStep(Contract):
    """A setting on the cheapest path: no other setting takes as few bytes and loses as little. It saves at least a
    thousandth of the previous step's bytes. Of settings of equal weights it is the simplest: the fewest knobs turned,
    steps in the given order."""

    first: Count
    second: Count
    order: Order
    bytes: Count = Field(description="as `storage` counts them")
    loss: Mean


class OrderEffect(Contract):
    """Reversed order minus order as given, at one setting, paired by position. Below 0: reversed is better."""

    first: Count
    second: Count
    log_perplexity: Mean = Field(description="nats per token")
    kl: Mean
    p: Number = Field(description="of no difference in ln PPL, after Holm's correction over all settings")
    p_kl: Number = Field(
        default=None,
        description="of no difference in KL, after Holm's correction over all settings; null: not computed",
    )


class Chosen(Contract):
    """The setting that the common blocks describe: one that changes the model."""

    first: Count
    second: Count
    order: Order
    within: bool = Field(
        description=(
            "whether its loss is within the chosen loss for sure. False: no changed setting's loss is, nothing is "
            "recommended, and this is the setting of least loss"
        )
    )
    recipe: tuple[dict[str, object], ...]


class SurfaceReport(ComparedReport):
    """What a surface job found."""

    kind: Literal["surface"] = "surface"
    severity: Severity = Field(
        description="of the chosen setting; if none is within the loss, of the mildest that changes the model"
    )
    knobs: tuple[SurfaceKnob, SurfaceKnob]
    zero: Literal["left out", "first value"] = Field(
        description="what index 0 of a knob means: the first value if both knobs are in one step"
    )
    orders: tuple[Order, ...] = Field(description="which orders of the two steps were measured")
    points: tuple[SurfacePoint, ...]
    interactions: tuple[Interaction, ...]
    margin: Number = Field(
        default=None, description="nats per token of interaction that count as none; null: none was stated"
    )
    contour: Contour
    storage: Storage = Field(description="how the path counts bytes")
    path: tuple[PathStep, ...] = Field(description="from the largest to the smallest")
    order_effects: tuple[OrderEffect, ...] = ()
    chosen: Chosen
