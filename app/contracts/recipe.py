"""A recipe: what is done to a checkpoint, step by step. One class a type; the type names are public and fixed."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from app.contracts.base import Contract

Bits = Annotated[int, Field(ge=2, le=8)]
GroupSize = Annotated[int, Field(ge=1, le=65536)]


class Step(Contract):
    """What any step may say: where it applies."""

    layers: (
        Annotated[tuple[Annotated[int, Field(ge=0, lt=10000)], ...], Field(min_length=1, max_length=10000)] | None
    ) = Field(default=None, description="Decoder layers, counted from 0; null: all of them.")
    modules: (
        Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1, max_length=100)]
        | None
    ) = Field(
        default=None,
        description="Module kinds (`q_proj`, `down_proj`, …, `attention`, `mlp`, `embed_tokens`, `lm_head`); "
        "null: every linear layer of the decoder, neither embeddings nor head.",
    )


class QuantizeRtn(Step):
    """Round to nearest. Asymmetric: min/max, 2^bits − 1 steps, rounded zero point. Symmetric: absmax/(2^(bits−1) − 1).

    `group_size` runs along the input dimension and must divide it; null is one scale an output channel.
    """

    type: Literal["quantize.rtn"]
    bits: Bits
    group_size: GroupSize | None = 64
    symmetric: bool = False


class PruneMagnitude(Step):
    """Zeros the weights of smallest magnitude: a share `sparsity` of each `scope`, or N of every M along the input."""

    type: Literal["prune.magnitude"]
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    scope: Literal["row", "layer", "global"] = Field(
        default="layer", description="Over what the share is taken: an output row, a weight matrix, or all of them."
    )
    pattern: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}:[1-9][0-9]{0,2}$")] | None = Field(
        default=None, description='"N:M": of every M consecutive weights of a row, N are kept (2:4 is one half sparse).'
    )

    @model_validator(mode="after")
    def _one_strength(self) -> "PruneMagnitude":
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError("give either sparsity or pattern")
        if self.pattern is not None:
            kept, of = (int(part) for part in self.pattern.split(":"))
            if kept >= of:
                raise ValueError(f"pattern {self.pattern}: N must be smaller than M")
        return self


RecipeStep = Annotated[QuantizeRtn | PruneMagnitude, Field(discriminator="type")]
Recipe = Annotated[tuple[RecipeStep, ...], Field(max_length=16)]

STEP_TYPES: tuple[str, ...] = tuple(
    get_args(step.model_fields["type"].annotation)[0] for step in (QuantizeRtn, PruneMagnitude)
)
