"""Weight matrices as products of two thinner ones."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.recipes.base import Calibrated, Rank, Step, percent
from app.recipes.strength import RANK, SHARE, UNKNOWN


class Truncated(Step):
    """A rank, or the share of each matrix' storage that is removed."""

    role = "factorizer"

    rank: Annotated[Rank, RANK] | None = None
    ratio: Annotated[float, Field(gt=0, lt=1), SHARE] | None = Field(
        default=None,
        description="Share of a matrix' parameters that two factors save; the rank follows from its shape.",
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
    """ASVD: input channels scaled by their mean absolute activation (to a power) before the decomposition."""

    runner = "workers.surgery.lowrank:Asvd"
    title = "ASVD"
    type: Literal["lowrank.asvd"]
    power: Annotated[float, Field(ge=0, le=2), UNKNOWN] = Field(default=0.5, description="ASVD's alpha.")


class LowrankSvdllm(Calibrated, Truncated):
    """SVD-LLM: decomposition after whitening by the Cholesky factor of the activations' second moment."""

    runner = "workers.surgery.lowrank:SvdLlm"
    title = "SVD-LLM"
    type: Literal["lowrank.svdllm"]
