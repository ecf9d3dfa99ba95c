"""The report of a surface job, kind `surface` of schema `hemostat.report/1`.

Two knobs of the candidate's recipe are turned together; a setting is a value of each. A value is null if the knob's
step is left out (with two knobs in one step: if it is at its first value). The common blocks describe one setting that
changes the model: of those whose loss is within the chosen one for sure, the one of fewest bytes. If there is none,
they describe the mildest, which loses least, and nothing is recommended. Interactions and effects of the order are
differences of ln PPL in nats per token, paired by position.
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
    values: tuple[JsonValue, ...] = Field(description="the first is null where the step is left out there")
    zero: Number = Field(
        description="where a step that is left out is on the knob's own axis: 0 for a share, the source's bits; "
        "null where it has no such place"
    )


class SurfacePoint(Contract):
    """One setting, measured against the reference. `first` and `second` are indices into the knobs' values."""

    first: Count
    second: Count
    order: Order
    recipe: tuple[dict[str, object], ...]
    refused: str = Field(default="", description="why the model cannot take it; the rest is then empty")
    refused_code: str = Field(default="", description="the error's code, if the refusal was foreseen")
    bytes: Count | None = Field(
        description="of the whole model, as its manifest counts them: zeros take as much as others. Settings of equal "
        "weights count alike, with the fewest bytes of them"
    )
    sparse_bytes: Count | None = Field(
        description="where zeros of pruned weights are not stored, one bit a weight beside; counted alike, too"
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
        description="what its kernels add, where it is packed and served by others than the reference; null where not",
    )
    no_kernel_term: str = Field(default="", description="why a packed point has none; empty for every other point")


class Interaction(Contract):
    """I = ln PPL(p,q) − ln PPL(p,0) − ln PPL(0,q) + ln PPL(0,0): 0 if damages add up, above where they compound."""

    first: Count
    second: Count
    order: Order
    nats: Mean
    kind: Kind = Field(
        description="compounds or overlaps if p is below 0.05. Else additive_within_margin if the whole 95 % "
        "interval is within the report's margin on either side of 0. Else no_departure_shown: the text is too short "
        "to tell an interaction from none"
    )
    p: Number = Field(
        description="of I = 0, after Holm's correction over all cells of the surface (of the domain, of the class)"
    )


class Limit(Contract):
    """How far one knob goes at a setting of the other before the chosen loss is passed."""

    knob: Literal["first", "second"] = Field(description="the knob that is turned")
    at: Count = Field(description="index of the other knob's value")
    place: Number = Field(
        description="along the turned knob's values, by index; null: not passed in the range. It is 0 if the first "
        "value is beyond the loss already (`largest` is null). It is also 0 if that value is within, and the next one "
        "cannot be made or gives no finite logits (`largest` is 0)"
    )
    value: Number = Field(description="the knob's value there, linear between neighbours; null where it has none")
    ci: tuple[Number, Number] | None = Field(
        description="95 % interval of `value`, clusters resampled; null: fewer than six clusters. A null end is "
        "beyond the range. It is of `place` if not every setting is a number or has a place on the knob's axis: page "
        "and terminal show its ends as values then. It holds every setting whose own interval holds the chosen loss, "
        "up to the first one that is beyond it for sure. It includes what was not measured between two settings, from "
        "the milder one up to the stronger one. If the knob removes a share and both settings are numbers, it starts "
        "at a straight line between them. This needs a KL at the milder setting of 0, as the unmodified model's is, "
        "or above a thousandth of the chosen loss"
    )
    largest: Count | None = Field(
        description="index of the furthest setting before the first one whose mean loss is beyond it; null: none"
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
    """A setting on the cheapest path: no other one takes as few bytes and loses as little. It saves at least a
    thousandth of the bytes of the one before. Of settings of equal weights it is the plainest: the fewest knobs
    turned, not exchanged."""

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
    """The setting that the common blocks speak of: one that changes the model."""

    first: Count
    second: Count
    order: Order
    within: bool = Field(
        description="whether its loss is within the chosen one for sure; false: no changed setting's is shown to, "
        "nothing is recommended, and it is the one that loses least"
    )
    recipe: tuple[dict[str, object], ...]


class SurfaceReport(ComparedReport):
    """What a surface job found."""

    kind: Literal["surface"] = "surface"
    severity: Severity = Field(
        description="of the chosen setting; where none is within the loss, of the mildest that changes the model"
    )
    knobs: tuple[SurfaceKnob, SurfaceKnob]
    zero: Literal["left out", "first value"] = Field(
        description="what index 0 of a knob is; the first value where both knobs are in one step"
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
