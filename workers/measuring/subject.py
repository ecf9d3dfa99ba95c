"""What a treatment needs to know of its patient: the recipe, the shapes, and where the damage sits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from app.contracts.text import TextSource
from app.models.checkpoint import CheckpointInfo
from app.models.modules import ROUTER_KINDS, Weight, weights_of
from app.models.steps import renumbering
from app.recipes.base import Calibrated, Step
from app.recipes.recipe import RECIPE, Recipe


@dataclass(frozen=True)
class Fit:
    """The text that treatments look at. `cheap`: a quarter of the windows and no training, to find out which treatments
    are worth the whole."""

    calibration: TextSource
    windows: int
    window: int
    seed: int
    cheap: bool = False

    def fields(self) -> dict[str, Any]:
        """As fields of a step."""
        windows = max(2, self.windows // 4) if self.cheap else self.windows
        return {
            "calibration": self.calibration.model_dump(mode="json"),
            "calibration_windows": windows,
            "calibration_window": self.window,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Subject:
    """`origin` is the checkpoint before its `recipe`. `layer_shares`: of the damage, by decoder layer, 1 together;
    empty if it is not known. `bytes` is what the candidate takes."""

    origin: CheckpointInfo
    recipe: Recipe
    bytes: int
    layer_shares: Mapping[int, float] = field(default_factory=dict)

    @cached_property
    def linears(self) -> tuple[Weight, ...]:
        """The linear layers of the decoder, routers left out."""
        return tuple(
            weight
            for weight in weights_of(self.origin)
            if weight.linear and weight.layer is not None and not weight.kinds & ROUTER_KINDS
        )

    @cached_property
    def renumbered(self) -> bool:
        """Whether a step changes which layer is which."""
        return bool(renumbering(self.origin, self.recipe))

    def elements(self, step: Step | None = None, layers: Iterable[int] | None = None) -> int:
        """How many weights the linear layers have that a step addresses, in these layers."""
        wanted = None if layers is None else set(layers)
        total = 0
        for weight in self.linears:
            if wanted is not None and weight.layer not in wanted:
                continue
            if step is not None:
                if step.layers is not None and weight.layer not in step.layers:
                    continue
                if step.modules is not None and not any(weight.answers_to(kind) for kind in step.modules):
                    continue
            total += prod(weight.shape)
        return total

    def layers_of(self, step: Step) -> tuple[int, ...]:
        """The decoder layers that a step addresses."""
        return tuple(sorted(set(step.layers))) if step.layers is not None else tuple(range(self.origin.layers))


def fields_of(step: Step) -> dict[str, Any]:
    """A step as data, what has its default left out."""
    return step.model_dump(mode="json", exclude_defaults=True)


def recipe_of(steps: Iterable[Mapping[str, Any]]) -> Recipe:
    """A recipe of data. Raises pydantic's ValidationError."""
    return RECIPE.validate_python([dict(step) for step in steps])


def reported_steps(recipe: Recipe) -> tuple[dict[str, object], ...]:
    """As a report holds it: short, and without the documents of an inline text."""
    steps = []
    for step in recipe:
        fields = fields_of(step)
        if isinstance(step, Calibrated) and fields.get("calibration", {}).get("source") == "inline":
            fields["calibration"] = {"source": "inline"}
        steps.append(fields)
    return tuple(steps)
