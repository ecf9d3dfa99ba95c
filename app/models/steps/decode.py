"""The temperature: where it can be put into a checkpoint, and what becomes of a soft cap.

If the layout of the architecture is known, the logits are W · (g ⊙ x̂). A number of the configuration
multiplies them. Here x̂ is the normalized state and g the final norm's gain: dividing g divides the logits. A soft cap
c makes c · tanh(z / c) of them, and (c/T) · tanh((z/T) / (c/T)) is 1/T of that: the cap is divided, too.
"""

from dataclasses import replace
from typing import Any, Final

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.models.modules import FLOATS, Weight
from app.models.shapes import LAYOUTS
from app.models.steps.norm import norms_of
from app.recipes.base import Step
from app.recipes.decode import DecodeTemperature

SOFTCAP: Final = "final_logit_softcapping"
# Architectures whose logits are capped, and where config.json says nothing.
CAPS: Final[dict[str, float | None]] = {"Gemma2ForCausalLM": 30.0, "Gemma3ForCausalLM": None}
_FINAL: Final = "model.norm"


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The final norm.

    Raises RECIPE_NOT_APPLICABLE for layers or modules, and for an architecture whose path from the final norm to the
    logits is not known. A final norm whose stored numbers cannot be divided is refused too.
    """
    for field in ("layers", "modules"):
        if getattr(step, field) is not None:
            raise _not_applicable(
                "a temperature is one of the whole distribution, which no part of the model has alone",
                f"leave {field} out",
                f"{pointer}/{field}",
            )
    if info.architecture not in LAYOUTS:
        raise _not_applicable(
            f"what is between the final norm and the logits of a {info.architecture} is not known",
            f"known are {', '.join(sorted(LAYOUTS))}",
            f"{pointer}/type",
        )
    found = [norm for norm in norms_of(info) if norm.module == _FINAL and norm.dtype in FLOATS]
    if not found:
        raise _not_applicable(
            f"the checkpoint has no {_FINAL}.weight in bf16, f16 or f32",
            "convert the checkpoint to bf16",
            pointer,
        )
    return found


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """The same checkpoint, perhaps with another soft cap."""
    assert isinstance(step, DecodeTemperature)  # noqa: S101 - the type that is routed here
    return replace(info, config=tempered(info, step.temperature))


def tempered(info: CheckpointInfo, temperature: float) -> dict[str, Any]:
    """The configuration with the soft cap divided by the temperature, where there is a cap; without one, and at a
    temperature of 1, the same."""
    cap = info.config.get(SOFTCAP, CAPS[info.architecture]) if info.architecture in CAPS else None
    if temperature == 1 or isinstance(cap, bool) or not isinstance(cap, int | float):
        return info.config
    return {**info.config, SOFTCAP: cap / temperature}


def _not_applicable(detail: str, hint: str, pointer: str) -> HemostatError:
    return HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, detail, hint=hint, pointer=pointer)
