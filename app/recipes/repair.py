"""What a model lost to its reference, taken back."""

from typing import Annotated, Final, Literal

from pydantic import Field

from app.recipes.base import Calibrated, Idle, Rank, counted
from app.recipes.strength import FALLING

# Positions of one step of distillation, at most: at least one window.
DISTILL_TOKENS: Final = 1024
# Of these, so many go forward and backward at once.
MICRO_TOKENS: Final = 512


class RepairLowrank(Calibrated):
    """Low-rank repair: adds a product of two thin matrices to every linear layer.

    The checkpoint has the product merged. The folder `adapter` has it as a PEFT LoRA.
    """

    role = "repair"
    taped = True
    runner = "workers.mitigation.repair.step:RepairStep"
    type: Literal["repair.lowrank"]
    calibration_windows: Annotated[int, Field(ge=1, le=4096), FALLING] = Field(
        default=64, description="Number of windows. The last eighth is not trained on and decides what is kept."
    )
    rank: Annotated[Rank, FALLING] = Field(
        description="Mean rank, weighted by bytes; no module has more than four times this rank."
    )
    allocation: Literal["uniform", "nats"] = Field(
        default="nats", description="`nats`: ranks by nats saved per byte; `uniform`: the same rank everywhere."
    )
    block_epochs: Annotated[int, Field(ge=0, le=1000), FALLING] = Field(
        default=3,
        description="Training epochs per block, after the closed form, towards the reference's block; 0: none.",
    )
    distill_steps: Annotated[int, Field(ge=0, le=1_000_000), FALLING] = Field(
        default=60, description="Steps of distillation of the whole model from the reference; 0: none."
    )
    distill_s: Annotated[float, Field(gt=0, le=86400), FALLING] | None = Field(
        default=None, description="Limit of the distillation in seconds; the result then depends on the machine."
    )
    own_windows: Annotated[int, Field(ge=0, le=4096), FALLING] = Field(
        default=0, description="Extra windows that the reference writes, for better results on other text."
    )
    iterations: Annotated[int, Field(ge=1, le=10), FALLING] = Field(
        default=1,
        description=(
            "Above 1: applies the earlier steps again to the error that the repair leaves. These steps must use "
            "weights only."
        ),
    )

    def words(self) -> str:
        """See `Step`."""
        own = f"{counted(self.own_windows, 'window')} of the reference's own text" if self.own_windows else ""
        fitted = f"blocks fitted over {counted(self.block_epochs, 'epoch')}" if self.block_epochs else ""
        trained = f"{self.distill_steps} steps of distillation" if self.distill_steps else ""
        how = ", ".join(filter(None, (own, fitted, trained))) or "closed form alone"
        return f"low-rank repair, mean rank {self.rank}, {how}"

    def idle(self) -> list[Idle]:
        """See `Step`."""
        if self.distill_steps:
            return super().idle()
        return [Idle(("distill_s",), ("distill_steps",), "distill_steps is 0", "give distill_steps")]

    @property
    def holds_model(self) -> bool:
        """To write text, to distil, and to choose between what it made."""
        return True

    @property
    def kept_tokens(self) -> int:
        """See `Step`."""
        at_once = max(MICRO_TOKENS, self.calibration_window)
        return min(at_once, self.text_tokens + self.written_tokens) if self.distill_steps else 0

    @property
    def written_tokens(self) -> int:
        """See `Step`."""
        return self.own_windows * self.calibration_window

    @property
    def trained_tokens(self) -> int:
        """See `Step`."""
        steps = 0 if self.distill_s else self.distill_steps
        fitted = self.block_epochs * (self.text_tokens + self.written_tokens)
        return fitted + steps * max(DISTILL_TOKENS, self.calibration_window)

    @property
    def trained_seconds(self) -> float:
        """See `Step`."""
        return self.distill_s or 0.0
