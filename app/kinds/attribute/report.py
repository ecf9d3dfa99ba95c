"""The report of an attribute job, kind `attribute` of schema `hemostat.report/1`.

The common blocks speak of the whole candidate on the whole text, in the engine. `sites` come from suffix runs through
transformers' layers on the part of the text that `subset` shows; `whole` has the whole candidate's KL of both on that
part. Nats are KL(reference ‖ reference with the candidate's part), a token.
"""

from typing import Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.report import (
    Blocks,
    Ci,
    ComparedReport,
    Count,
    KernelTerm,
    Mean,
    Number,
)
from app.kinds.attribute.blocks import Internals

SiteKind = Literal["layer", "module", "norm", "heads", "expert", "embedding", "head", "gap"]
Cause = Literal[
    "negligible",
    "removed",
    "inserted",
    "norm",
    "router",
    "outlier_channels",
    "aligned",
    "low_rank",
    "size",
    "sheltered",
    "unclear",
]
Unclear = Literal["no_damage_shown", "not_looked_into", "left_open"]


class Treatment(Contract):
    """What fits the cause: a whole recipe on the candidate's alias, or why there is none."""

    recipe: tuple[dict[str, object], ...] | None = Field(
        description="for compare, mitigate and deploy, on the candidate's alias; null: none, and `why` says why"
    )
    why: str


class Evidence(Contract):
    """What the cause was distinguished from. Errors are of the part's linear modules, weighted with their inputs on the
    subset: ‖ΔW x‖² is what they add to what the module gives."""

    change: float | None = Field(description="‖ΔW‖ / ‖W‖ of the part")
    outlier_share: float | None = Field(
        default=None, description="share of E‖ΔW x‖² (cross terms left out) in the worst hundredth of input channels"
    )
    low_rank_share: float | None = Field(
        default=None, description="share of it in the first sixteen directions of ΔW · √E[x²]"
    )
    low_rank_noise: float | None = Field(
        default=None,
        description="share of its energy that independent noise of the same shapes has in as many directions. The "
        "error is of low rank if `low_rank_share` is at least halfway from here to 1",
    )
    zeros: float | None = Field(default=None, description="share of weights that are 0 here and not in the reference")


class Site(Contract):
    """One part of the model. Means and shares are over `tokens` tokens of the subset."""

    name: str
    kind: SiteKind
    layer: Count | None = Field(
        description="of a gap: the reference's layer before which it is; null: outside the layers"
    )
    nats: float = Field(description="KL of the reference with the candidate's part, nats per token")
    ci: Ci | None
    share: Number = Field(
        description="nats over the whole candidate's KL at the same positions; shares need not sum up"
    )
    share_ci: Ci | None = None
    restored: Mean | None = Field(
        default=None, description="nats that the candidate gains where this part is the reference's again, paired"
    )
    shown: bool | None = Field(
        default=None,
        description="whether the interval of its nats is above 0; false: no damage is shown, and none is excluded "
        "unless `cause` is negligible; null: no interval",
    )
    control: float | None = Field(
        description="largest KL of any position where the part was swapped by itself: exactly 0; null: not run for it, "
        "or, with a warning, logits were not finite"
    )
    isotropic_ratio: float | None = Field(
        description="nats over those of noise of the same norm in a random direction; null: not run for it"
    )
    isotropic_ci: Ci | None = None
    cause: Cause
    unclear: Unclear | None = Field(
        default=None,
        description="if `cause` is unclear, why. no_damage_shown: no treatment, more text may help. not_looked_into: "
        "not among the first parts, no treatment. left_open: no rule shows the cause, treated as mere size",
    )
    why: str = Field(default="", description="the cause in words, with its numbers")
    evidence: Evidence | None = None
    treatment: Treatment | None = Field(default=None, description="for the first `top` parts")
    tokens: Count


class NowhereFinite(Contract):
    """A part that, alone in the reference, leaves no finite logits at any of `tokens` tokens: worse than any number."""

    name: str
    kind: SiteKind
    layer: Count | None
    tokens: Count


class Whole(Contract):
    """The whole candidate on the subset, by both engines; suffix runs add up to `transformers`."""

    engine: Mean = Field(description="as the engine of the service runs it, kernels and all")
    transformers: Mean = Field(description="as transformers' layers run it, a packed candidate dequantized")
    difference: Mean = Field(description="engine − transformers, paired by position")


class Explained(Contract):
    """The first parts, swapped together: what of the damage they are."""

    sites: tuple[str, ...]
    nats: Mean
    share: Mean = Field(description="of the whole candidate's KL, at the same positions")
    restored: Mean | None = None
    restored_share: Mean | None = Field(default=None, description="nats gained over the whole candidate's KL")


class Additivity(Contract):
    """Whether parts add up. `ratio` is the whole candidate's KL over the sum of those of `over`."""

    over: tuple[str, ...] = Field(description="parts that together are all that differs")
    total: Mean = Field(description="sum of their nats")
    ratio: Mean | None


class Search(Contract):
    """How the budget was spent, in forward passes of the whole model over the subset."""

    budget: float
    spent: float = Field(description="by swaps in search of the first parts")
    looked_into: float = Field(description="by controls, twins, pairs and restoring, beside the budget")
    considered: Count = Field(description="parts that differ, of the chosen kinds and layers")
    unchanged: Count = Field(description="such parts whose weights are the reference's: their nats are exactly 0")
    untried: Count = Field(description="layers, and parts outside of them, that the budget did not reach")
    others: Count = Field(description="parts of other kinds that differ in the chosen layers")
    measured: Count
    seconds: float = Field(description="of all suffix runs of the search")


class Subset(Contract):
    """The part of the text that parts were swapped on."""

    windows: Count
    length: Count = Field(description="tokens of a window: longer ones are cut there, shorter ones left out")
    documents: Count
    positions: Count = Field(description="scored ones")
    control_positions: Count
    twin_positions: Count


class AttributeReport(Blocks, ComparedReport):
    """What an attribute job found."""

    kind: Literal["attribute"] = "attribute"
    kernel_term: KernelTerm | None = None
    sites: tuple[Site, ...] = Field(
        description="those that were measured on more tokens first, of as many by nats, most first"
    )
    nowhere_finite: tuple[NowhereFinite, ...] = Field(
        default=(), description="parts that stand before all of `sites`: finite nowhere, and so without nats"
    )
    whole: Whole | None = Field(description="null where the models have too little in common for suffix runs")
    explained: Explained | None
    additivity: Additivity | None
    treatment: Treatment | None = Field(description="for all of the first parts together")
    search: Search | None
    subset: Subset | None
    not_swapped: str = Field(default="", description="why parts were not swapped; empty where they were")
    internals: Internals | None = Field(
        default=None,
        description="alignment of the layers, attention, activations; null: not asked for, and parts were swapped. If "
        "no part was swapped, the gaps of the alignment are the parts",
    )
