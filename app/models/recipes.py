"""A recipe's one canonical form, and the name that follows from it."""

import hashlib
import json
from typing import Final

from app.contracts.text import InlineText
from app.recipes.base import Calibrated, Step
from app.recipes.recipe import Recipe

# What decides nothing in a step that reads no text.
_TEXT: Final = frozenset(Calibrated.model_fields) - frozenset(Step.model_fields)


def canonical_json(recipe: Recipe) -> str:
    """The recipe with every default filled in, layers and modules sorted, keys sorted: equal for equal effect of the
    fields, whichever way they were written.

    Documents that stand in the recipe are named by their hash: manifests and reports, which keep this form, hold no
    text.
    """
    steps = []
    for step in recipe:
        silent = isinstance(step, Calibrated) and not step.reads_text
        fields = step.model_dump(mode="json", exclude=set(_TEXT) if silent else None)
        if "calibration" in fields and isinstance(step, Calibrated) and isinstance(step.calibration, InlineText):
            fields["calibration"] = _told_inline(step.calibration)
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
