"""Recipes and models in a few words: `4-bit RTN, group 64`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.contracts.report import ModelProvenance
from app.recipes.recipe import STEPS

Step = Mapping[str, Any]


def model(provenance: ModelProvenance) -> str:
    """The alias, and what was done to it."""
    done = recipe(provenance.recipe)
    return f"{provenance.model} · {done}" if done else provenance.model


def recipe(steps: Sequence[Step]) -> str:
    """All steps in the order in which they were applied; empty if there is none."""
    return ", then ".join(map(step, steps))


def with_knobs(steps: Sequence[Step], knobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps with the values of each knob where a request writes them: `{"sweep": [...]}`."""
    turned = [dict(one) for one in steps]
    for knob in knobs:
        if knob["step"] < len(turned):
            turned[knob["step"]][knob["field"]] = {"sweep": list(knob["values"])}
    return turned


def step(of: Step) -> str:
    """One step; of a type that is not known here, as of a newer service's, the type."""
    kind = str(of.get("type", "unknown step"))
    if kind not in STEPS:
        return kind
    swept = {name: value["sweep"] for name, value in of.items() if isinstance(value, dict) and "sweep" in value}
    known = STEPS[kind].model_construct(**{name: value for name, value in of.items() if name not in swept})
    if swept:
        return f"{kind} with {' and '.join(_turned(name, values) for name, values in swept.items())}{known.where()}"
    return known.label()


def _turned(name: str, values: Any) -> str:
    """A knob over its values: `bits from 8 to 2 (7 values)`."""
    if not isinstance(values, list) or not values:
        return f"{name} turned"
    ends = values[0], values[-1]
    if all(isinstance(value, int | float) for value in values):
        ends = (min(values), max(values)) if ends[0] <= ends[1] else (max(values), min(values))
    first, last = (json.dumps(value, ensure_ascii=False).strip('"') for value in ends)
    return f"{name} from {first} to {last} ({len(values)} values)"
