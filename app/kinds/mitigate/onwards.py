"""What to do with a recipe that a mitigate job recommends: commands for a POSIX shell that work as they stand."""

from __future__ import annotations

import shlex
from typing import Final

from pydantic import ValidationError

from app.contracts.errors import HemostatError
from app.contracts.request import JobRequest
from app.kinds.mitigate.report import MitigateReport
from app.models.steps.repair import packed_base
from app.recipes.recipe import RECIPE

RECIPE_FILE: Final = "recipe.json"
CARD_FILE: Final = "README.md"
_WINDOW: Final = JobRequest.model_fields["window"].default


def commands(report: MitigateReport, recipe_file: str, *, options: str = "") -> list[str]:
    """Compare and deploy, of the recipe in `recipe_file`; `options` go behind either. Empty if nothing is
    recommended; a recipe whose text is sampled from the reference cannot be deployed."""
    if not report.recommended:
        return []
    reference, candidate = report.provenance.reference.model, report.provenance.candidate.model
    recipe = f"--recipe {shlex.quote(f'@{recipe_file}')}"
    measured = "" if report.provenance.protocol.window == _WINDOW else f" --window {report.provenance.protocol.window}"
    if (report.request or {}).get("allow_overlap"):
        measured += " --allow-overlap"
    found = [f"hemostat compare {shlex.quote(reference)} {shlex.quote(candidate)} {recipe}{measured}{options}"]
    if "self" not in sources(report):
        found.append(
            f"hemostat deploy create {shlex.quote(f'{candidate}-treated')} --model {shlex.quote(candidate)} "
            f"--reference {shlex.quote(reference)} {_served(report, recipe)}{options}"
        )
    return found


def _served(report: MitigateReport, recipe: str) -> str:
    """The option of a deployment: a repair is served beside packed weights if these have kernels everywhere, which
    4 bits have; else the recipe."""
    try:
        base = packed_base(RECIPE.validate_python(report.recommended), "/recipe")
    except (ValidationError, HemostatError):
        return recipe
    packed = len(base) == 1 and getattr(base[0], "bits", None) == 4
    return f"--repair {shlex.quote(report.job)}" if packed else recipe


def fetching(report: MitigateReport, *, options: str = "") -> list[str]:
    """The same from the files of the job, which are fetched first."""
    if not report.recommended:
        return []
    return [
        f"hemostat jobs fetch {shlex.quote(report.job)}{options}",
        *commands(report, f"{report.job}/{RECIPE_FILE}", options=options),
    ]


def sources(report: MitigateReport) -> set[str]:
    """Where the text comes from that the recommended recipe looks at."""
    texts = [step.get("calibration") for step in report.recommended or ()]
    return {str(text.get("source")) for text in texts if isinstance(text, dict)}
