"""The request of an `attribute` job."""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, field_validator

from app.contracts.option import Option
from app.contracts.request import JobRequest

SiteLevel = Literal["layer", "module", "norm", "heads", "expert"]
LEVELS: Final[tuple[SiteLevel, ...]] = get_args(SiteLevel)
Direction = Literal["swap", "restore"]


class AttributeRequest(JobRequest):
    """Find the parts of the candidate that cause its loss, why they do, and what would repair them.

    Each part is swapped, alone, into the reference. For the first parts the candidate also gets the reference's part
    back. The rest of the model runs again from the stored states at the part's layer.
    """

    kind: Literal["attribute"]
    levels: Annotated[tuple[SiteLevel, ...], Field(min_length=1, max_length=5), Option("--level")] = Field(
        default=LEVELS,
        description="what counts as a part: whole layers, linear modules, norms, groups of heads that share keys and "
        "values, experts",
    )
    layers: Annotated[
        Annotated[tuple[Annotated[int, Field(ge=0, lt=10000)], ...], Field(min_length=1, max_length=10000)] | None,
        Option(shape="layers"),
    ] = Field(
        default=None, description="look for parts in these decoder layers only; default: in all, and outside them"
    )
    directions: Annotated[
        tuple[Direction, ...],
        Field(min_length=1, max_length=2),
        Option("--no-restore", sets=("swap",), help="Do not restore the first parts in the candidate."),
    ] = Field(
        default=("swap", "restore"),
        description="swap: the candidate's part into the reference; restore: the reference's part into the candidate, "
        "for the parts that are found to cost most",
    )
    tokens: Annotated[int, Field(ge=16, le=10_000_000)] = Field(
        default=4096, description="tokens of the text that parts are swapped on; whole models are compared on all of it"
    )
    budget: Annotated[float, Field(ge=1, le=100_000)] = Field(
        default=64.0,
        description="most forward passes of the whole model over these tokens that swaps may take",
    )
    top: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8, description="number of parts that get controls, isotropic twins, causes and treatments"
    )
    twins: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1, description="random directions whose mean is the isotropic twin of a part"
    )
    internals: bool = Field(
        default=True,
        description="also compare the two models inside: matched layers, attention, growth of errors from layer to "
        "layer. Layers are always matched if no part can be swapped",
    )

    @field_validator("directions")
    @classmethod
    def _one_direction_is_the_swap(cls, directions: tuple[Direction, ...]) -> tuple[Direction, ...]:
        if "swap" not in directions:
            raise ValueError("directions must contain swap: it chooses the parts to restore")
        return directions
