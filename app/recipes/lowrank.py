"""Weight matrices as products of two thinner ones."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.recipes.base import Calibrated, Rank, Step, percent
from app.recipes.strength import RANK, SHARE, UNKNOWN


class Truncated(Step):
    """A rank, or the share of each matrix' storage that is removed."""

    role = "factorizer"

    rank: Annotated[Rank, RANK] | None = Field(
        default=None, description="Rank of every matrix, below both of its dimensions; give this or `ratio`."
    )
    ratio: Annotated[float, Field(gt=0, lt=1), SHARE] | None = Field(
        default=None, description="Share of a matrix' parameters that two factors save: r = ⌊(1 − ratio)·O·I/(O + I)⌋."
    )

    @model_validator(mode="after")
    def _one_strength(self) -> "Truncated":
        if (self.rank is None) == (self.ratio is None):
            raise ValueError("give either rank or ratio")
        return self

    def words(self) -> str:
        """See `Step`."""
        size = f"rank {self.rank}" if self.rank else f"{percent(self.ratio)} smaller"
        return f"{self.title}, {size}"


class LowrankSvd(Truncated):
    """Truncated singular value decomposition of each weight matrix."""

    runner = "workers.surgery.lowrank:PlainSvd"
    title = "SVD"
    type: Literal["lowrank.svd"]


class LowrankAsvd(Calibrated, Truncated):
    """ASVD: scales input channels by their mean absolute activation before the decomposition."""

    runner = "workers.surgery.lowrank:Asvd"
    title = "ASVD"
    type: Literal["lowrank.asvd"]
    power: Annotated[float, Field(ge=0, le=2), UNKNOWN] = Field(
        default=0.5, description="Exponent of the mean absolute activation (ASVD's α)."
    )


class LowrankSvdllm(Calibrated, Truncated):
    """SVD-LLM: decomposition after whitening by the Cholesky factor of the activations' second moment."""

    runner = "workers.surgery.lowrank:SvdLlm"
    squares = True
    title = "SVD-LLM"
    type: Literal["lowrank.svdllm"]
