"""A recipe's one canonical form, and the name that follows from it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from app.contracts.recipe import Calibrated, CalibratedSparse, Recipe, Sparse
from app.contracts.text import InlineText


@dataclass(frozen=True)
class _Later:
    """Fields that a type has got since it is in use: where `field` is `nothing`, those of `left_out` say nothing."""

    field: str
    nothing: object
    left_out: frozenset[str]


# By type. What says nothing is left out, whatever it holds: recipes of the time before keep their names.
_LATER: Final[dict[str, _Later]] = {
    # It reads a text since it knows OWL, and for that alone.
    "prune.magnitude": _Later(
        "allocation", "uniform", frozenset(CalibratedSparse.model_fields) - frozenset(Sparse.model_fields)
    ),
    "quantize.dynamic": _Later("block_epochs", 0, frozenset({"block_epochs"})),
    "repair.lowrank": _Later("own_windows", 0, frozenset({"own_windows"})),
}


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
        later = _LATER.get(step.type)
        if later is not None and fields[later.field] == later.nothing:
            fields = {name: value for name, value in fields.items() if name not in later.left_out}
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
