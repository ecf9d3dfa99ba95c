"""A recipe: what is done to a checkpoint, step by step. One class a type; the type names are public and fixed.

One file a family. A new type is a class in its family's file and a name in `RecipeStep` below; each of its numbers says
in its annotation which way it is stronger (`app.contracts.recipe.strength`).
"""

from typing import Annotated, get_args

from pydantic import Field

from app.contracts.recipe.base import Calibrated, Grouped, Sparse, Step
from app.contracts.recipe.decode import DecodeTemperature
from app.contracts.recipe.extend import (
    ContextLinear,
    ContextNtk,
    ContextYarn,
    ExtendDuplicate,
    ExtendIdentity,
    ExtendInterpolate,
    ExtendWidth,
    MoeRouter,
    MoeTopk,
)
from app.contracts.recipe.lowrank import LowrankAsvd, LowrankSvd, LowrankSvdllm
from app.contracts.recipe.merge import AdapterLora, MergeLinear
from app.contracts.recipe.mitigation import PruneGradient, QuantizeDynamic, RepairLowrank
from app.contracts.recipe.norm import NormDrop, NormEpsilon, NormScale, NormTweak
from app.contracts.recipe.prune import (
    CalibratedSparse,
    PruneChannels,
    PruneHeads,
    PruneLayers,
    PruneMagnitude,
    PruneRia,
    PruneSparsegpt,
    PruneWanda,
)
from app.contracts.recipe.quantize import (
    QuantizeActivations,
    QuantizeAwq,
    QuantizeFp8,
    QuantizeGptq,
    QuantizeKvCache,
    QuantizeNf4,
    QuantizeRtn,
    QuantizeSmoothquant,
)

_Step = (
    QuantizeRtn
    | QuantizeGptq
    | QuantizeAwq
    | QuantizeSmoothquant
    | QuantizeFp8
    | QuantizeNf4
    | QuantizeActivations
    | QuantizeKvCache
    | PruneMagnitude
    | PruneWanda
    | PruneSparsegpt
    | PruneRia
    | PruneLayers
    | PruneHeads
    | PruneChannels
    | LowrankSvd
    | LowrankAsvd
    | LowrankSvdllm
    | ExtendDuplicate
    | ExtendIdentity
    | ExtendInterpolate
    | ExtendWidth
    | MoeTopk
    | MoeRouter
    | ContextLinear
    | ContextNtk
    | ContextYarn
    | AdapterLora
    | MergeLinear
    | NormScale
    | NormEpsilon
    | NormDrop
    | NormTweak
    | DecodeTemperature
    | PruneGradient
    | QuantizeDynamic
    | RepairLowrank
)
RecipeStep = Annotated[_Step, Field(discriminator="type")]
Recipe = Annotated[tuple[RecipeStep, ...], Field(max_length=16)]

# Public name → class.
STEPS: dict[str, type[Step]] = {get_args(step.model_fields["type"].annotation)[0]: step for step in get_args(_Step)}
STEP_TYPES: tuple[str, ...] = tuple(STEPS)

__all__ = [
    "STEPS",
    "STEP_TYPES",
    "AdapterLora",
    "Calibrated",
    "CalibratedSparse",
    "ContextLinear",
    "ContextNtk",
    "ContextYarn",
    "DecodeTemperature",
    "ExtendDuplicate",
    "ExtendIdentity",
    "ExtendInterpolate",
    "ExtendWidth",
    "Grouped",
    "LowrankAsvd",
    "LowrankSvd",
    "LowrankSvdllm",
    "MergeLinear",
    "MoeRouter",
    "MoeTopk",
    "NormDrop",
    "NormEpsilon",
    "NormScale",
    "NormTweak",
    "PruneChannels",
    "PruneGradient",
    "PruneHeads",
    "PruneLayers",
    "PruneMagnitude",
    "PruneRia",
    "PruneSparsegpt",
    "PruneWanda",
    "QuantizeActivations",
    "QuantizeAwq",
    "QuantizeDynamic",
    "QuantizeFp8",
    "QuantizeGptq",
    "QuantizeKvCache",
    "QuantizeNf4",
    "QuantizeRtn",
    "QuantizeSmoothquant",
    "Recipe",
    "RecipeStep",
    "RepairLowrank",
    "Sparse",
    "Step",
]
