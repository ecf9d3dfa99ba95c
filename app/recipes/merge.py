"""Other people's changes put into the weights."""

from typing import Annotated, Literal

from pydantic import Field

from app.recipes.base import Step
from app.recipes.strength import around

Alias = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class AdapterLora(Step):
    """Merges a PEFT LoRA adapter into the weights."""

    role = "merger"
    runner = "workers.surgery.merge:Lora"
    type: Literal["adapter.lora"]
    adapter: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="Folder of the adapter, as PEFT saves it, below `HEMOSTAT_ADAPTER_ROOT`."
    )
    strength: Annotated[float, Field(ge=-10, le=10), around(0.0)] = Field(
        default=1.0, description="Factor beside the adapter's own scale."
    )

    def words(self) -> str:
        """See `Step`."""
        return "LoRA merged" + ("" if self.strength == 1 else f", strength {self.strength:g}")


class MergeLinear(Step):
    """Weighted mean of two checkpoints of equal shapes: (1 − weight) · this + weight · other."""

    role = "merger"
    runner = "workers.surgery.merge:Linear"
    type: Literal["merge.linear"]
    other: Alias = Field(description="Alias of the other model in models.toml.")
    weight: Annotated[float, Field(ge=-10, le=10), around(0.0)] = Field(
        default=0.5, description="Weight of the other model: 0 keeps this one, 1 takes the other."
    )

    def words(self) -> str:
        """See `Step`."""
        return f"merged with {self.other} ({self.weight:g})"
