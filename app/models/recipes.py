"""A recipe's one canonical form, and the name that follows from it."""

import hashlib
import json
from typing import Final

from app.contracts.recipe import Calibrated, PruneMagnitude, Recipe
from app.contracts.text import InlineText

# What magnitude pruning has been asked for since before it knew OWL. The other fields say nothing without it, and are
# left out then: recipes of that time keep their names.
_MAGNITUDE: Final = frozenset({"type", "layers", "modules", "sparsity", "pattern", "scope"})
# Fields that came later, with the value that says nothing: left out there, for the same reason.
_LATER: Final = {"quantize.dynamic": {"block_epochs": 0}, "repair.lowrank": {"own_windows": 0}}


def canonical_json(recipe: Recipe) -> str:
    """The recipe with every default filled in, layers and modules sorted, keys sorted: equal for equal effect of the
    fields, whichever way they were written.

    Documents that stand in the recipe are named by their hash: manifests and reports, which keep this form, hold no
    text.
    """
    steps = []
    for step in recipe:
        fields = step.model_dump(mode="json")
        if isinstance(step, Calibrated) and isinstance(step.calibration, InlineText):
            fields["calibration"] = _told_inline(step.calibration)
        if isinstance(step, PruneMagnitude) and not step.reads_text:
            fields = {name: value for name, value in fields.items() if name in _MAGNITUDE}
        for name, nothing in _LATER.get(step.type, {}).items():
            if fields[name] == nothing:
                del fields[name]
        for name in ("layers", "modules"):
            if fields.get(name) is not None:
                fields[name] = sorted(set(fields[name]))
        steps.append(fields)
    return json.dumps(steps, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def recipe_fingerprint(recipe: Recipe) -> str | None:
    """SHA-256, hex, of the canonical form; None for the empty recipe."""
    return hashlib.sha256(canonical_json(recipe).encode()).hexdigest() if recipe else None


def _told_inline(text: InlineText) -> dict[str, object]:
    digest = hashlib.sha256(text.model_dump_json().encode()).hexdigest()
    return {"source": "inline", "documents": len(text.documents), "sha256": digest}
