"""The report of an attribute job, kind `attribute` of schema `hemostat.report/1`.

The common blocks describe the whole candidate on the whole text, in the engine. `sites` come from suffix runs through
transformers' layers, on the part of the text that `subset` describes. `whole` has the whole candidate's KL on that
part, by both engines. Nats are KL(reference ‖ reference with the candidate's part) per token.
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
    """The repair of the cause: a whole recipe on the candidate's alias, or why there is none."""

    recipe: tuple[dict[str, object], ...] | None = Field(
        description="for compare, mitigate and deploy, on the candidate's alias; null: none, `why` has the reason"
    )
    why: str


class Evidence(Contract):
    """The measurements that the cause follows from. Errors are those of the part's linear modules, weighted with their
    inputs on the subset. ‖ΔW x‖² is the error of the module's output."""

    change: float | None = Field(description="‖ΔW‖ / ‖W‖ of the part")
    outlier_share: float | None = Field(
        default=None, description="share of E‖ΔW x‖², without cross terms, in the worst hundredth of input channels"
    )
    low_rank_share: float | None = Field(
        default=None, description="share of the error in the first sixteen directions of ΔW · √E[x²]"
    )
    low_rank_noise: float | None = Field(
        default=None,
        description=(
            "the same share for independent noise of the same shapes. The error is of low rank if `low_rank_share` "
            "is at least halfway from this value to 1"
        ),
    )
    zeros: float | None = Field(
        default=None, description=("share of weights that are 0 in the candidate and not in the reference")
    )


class Site(Contract):
    """One part of the model. Means and shares are over `tokens` tokens of the subset."""

    name: str
    kind: SiteKind
    layer: Count | None = Field(description="of a gap: the reference's layer after it; null: outside the layers")
    nats: float = Field(description="KL of the reference with the candidate's part, nats per token")
    ci: Ci | None
    share: Number = Field(
        description="nats over the whole candidate's KL at the same positions; shares need not sum to 1"
    )
    share_ci: Ci | None = None
    restored: Mean | None = Field(
        default=None, description="nats that the candidate gains if this part is the reference's again, paired"
    )
    shown: bool | None = Field(
        default=None,
        description=(
            "whether the interval of its nats is above 0. False: no damage is shown; damage is excluded only if "
            "`cause` is negligible. Null: no interval"
        ),
    )
    control: float | None = Field(
        description=(
            "largest KL of any position after the part was swapped by itself: exactly 0. Null: not run, or logits "
            "were not finite (a warning says so)"
        )
    )
    isotropic_ratio: float | None = Field(
        description="nats over those of noise of the same norm in a random direction; null: not run"
    )
    isotropic_ci: Ci | None = None
    cause: Cause
    unclear: Unclear | None = Field(
        default=None,
        description=(
            "why `cause` is unclear. `no_damage_shown`: no treatment; more text may help. `not_looked_into`: not "
            "among the first parts; no treatment. `left_open`: no rule finds the cause; treated as `size`"
        ),
    )
    why: str = Field(default="", description="the cause in words, with its numbers")
    evidence: Evidence | None = None
    treatment: Treatment | None = Field(default=None, description="for the first `top` parts")
    tokens: Count


class NowhereFinite(Contract):
    """A part that leaves no finite logits at any of `tokens` tokens, swapped alone. It is worse than any number."""

    name: str
    kind: SiteKind
    layer: Count | None
    tokens: Count


class Whole(Contract):
    """The whole candidate on the subset, by both engines. Suffix runs are compared with `transformers`."""

    engine: Mean = Field(description="as the engine of the service runs it, kernels and all")
    transformers: Mean = Field(description="as transformers' layers run it, a packed candidate dequantized")
    difference: Mean = Field(description="engine − transformers, paired by position")


class Explained(Contract):
    """The first parts, swapped together: their share of the damage."""

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
    spent: float = Field(description="by swaps that search for the first parts")
    looked_into: float = Field(description="by controls, twins, pairs and restoring; not part of the budget")
    considered: Count = Field(description="parts that differ, of the chosen kinds and layers")
    unchanged: Count = Field(description="parts whose weights are the reference's: their nats are exactly 0")
    untried: Count = Field(description="layers, and parts outside the layers, that the budget did not reach")
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
    sites: tuple[Site, ...] = Field(description="parts measured on more tokens first; at equal tokens, more nats first")
    nowhere_finite: tuple[NowhereFinite, ...] = Field(
        default=(),
        description=("parts without finite logits at any position, so without nats; they rank before all of `sites`"),
    )
    whole: Whole | None = Field(description="null if the models have too little in common for suffix runs")
    explained: Explained | None
    additivity: Additivity | None
    treatment: Treatment | None = Field(description="for all of the first parts together")
    search: Search | None
    subset: Subset | None
    not_swapped: str = Field(default="", description="why parts were not swapped; empty if they were")
    internals: Internals | None = Field(
        default=None,
        description=(
            "alignment of the layers, attention, activations. Null: not asked for, and parts were swapped. If no "
            "part was swapped, the gaps of the alignment are the parts"
        ),
    )
