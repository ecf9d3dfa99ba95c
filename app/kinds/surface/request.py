"""The request of a `surface` job: two knobs turned together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.base import Contract, broken
from app.contracts.option import Option
from app.contracts.request import Knob, SweptRequest

# Settings of both knobs together, of both orders where both are asked for.
MOST_POINTS = 200


class ChosenLoss(Contract):
    """The loss whose contour is drawn."""

    measure: Literal["kl", "perplexity_ratio", "perplexity"] = "kl"
    level: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="nats of KL, candidate's over reference's perplexity, or perplexity; null: where moderate damage "
        "begins (kl), 1.05 (perplexity_ratio)",
    )

    @model_validator(mode="after")
    def _known(self) -> "ChosenLoss":
        if self.measure == "perplexity" and self.level is None:
            raise broken("a perplexity has no level of its own: give one", hint="Give a level above 1, such as 7.5.")
        if self.measure != "kl" and self.level is not None and self.level <= 1:
            measure = self.measure.replace("_", " ")
            message = f"a level of {self.level:g} is no {measure} that a loss could have: that is above 1"
            raise broken(message, hint="Give a level above 1: at 1 nothing is lost.")
        return self


class SurfaceRequest(SweptRequest):
    """Turn two knobs of a recipe together: do their damages add up, how far may both go, and which path is cheapest."""

    kind: Literal["surface"]
    knobs: Annotated[tuple[Knob, ...], Field(min_length=2, max_length=2)] = Field(
        description='short for {"sweep": [...]} or {"sweep": {"from": ..., "to": ..., "points": ...}} in place of two '
        "values of the candidate's recipe, which then holds the first value of each"
    )
    orders: Annotated[
        Literal["as given", "both"],
        Option("--both-orders", sets="both", help="Also measure every setting with the two steps exchanged."),
    ] = Field(default="as given", description="`both`: also every setting with the two steps exchanged")
    contour: Annotated[ChosenLoss, Option(shape="contour")] = Field(
        default=ChosenLoss(), description="the largest loss allowed; default: where moderate damage begins"
    )
    margin: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="largest interaction, in nats per token, that counts as none; default: where mild damage begins. "
        "Damages add up if the whole 95 % interval of their interaction is between −margin and +margin",
    )
    storage: Literal["sparse", "dense"] = Field(
        default="sparse",
        description="how bytes are counted. sparse: zeros of pruned weights are not stored, one bit per weight marks "
        "them; dense: they are stored",
    )

    @property
    def level(self) -> float:
        """The chosen loss in its measure."""
        if self.contour.level is not None:
            return self.contour.level
        return self.thresholds.moderate if self.contour.measure == "kl" else 1.05

    @property
    def additive_margin(self) -> float:
        """Nats per token of interaction that count as none."""
        return self.thresholds.mild if self.margin is None else self.margin

    @property
    def planned(self) -> int:
        """How many settings are measured, those with a step left out among them."""
        one, other = self.knobs
        zero = int(one.step != other.step)
        rows, columns = len(one.values) + zero, len(other.values) + zero
        inner = (rows - 1) * (columns - 1) if self.orders == "both" else 0
        return rows * columns + inner
