"""How a recipe whose knobs are turned is written and named: in reports, in artifacts, in labels of metrics."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from app.contracts.request import SweptRequest
from app.models.knobs import WORD
from app.models.recipes import canonical_json


def swept_recipe(request: SweptRequest) -> tuple[dict[str, Any], ...]:
    """The recipe as data, its knobs written as a request writes them."""
    steps: list[dict[str, Any]] = json.loads(canonical_json(request.candidate.recipe))
    for knob in request.knobs:
        steps[knob.step][knob.field] = {WORD: list(knob.values)}
    return tuple(steps)


def swept_fingerprint(request: SweptRequest) -> str:
    """Names the recipe with its knobs, as `recipe_fingerprint` names a recipe."""
    written = json.dumps(swept_recipe(request), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(written.encode()).hexdigest()
