"""Treatments of a mitigate job in words: `quantize.dynamic mixed, extra bits 0.5, then repair.lowrank rank 16`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.kinds.mitigate.report import Treatment
from app.recipes.recipe import STEPS

UNTREATED: Final = "the candidate as it is"


def described(treatments: Sequence[Treatment]) -> str:
    """The treatments of one recipe in their order, with the settings that a step does not have by default."""
    return ", then ".join(map(_one, treatments)) or UNTREATED


def _one(treatment: Treatment) -> str:
    fields = STEPS[treatment.name].model_fields if treatment.name in STEPS else {}
    settings = []
    for name, value in treatment.knobs.items():
        if not value or (name in fields and fields[name].default == value):
            continue
        word = name.replace("_", " ")
        settings.append(word if value is True else f"{word} {value}")
    return " ".join(filter(None, (treatment.name, ", ".join(settings))))
