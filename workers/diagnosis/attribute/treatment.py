"""The treatment that fits a cause, as a recipe on the candidate's alias.

A step of the candidate's own recipe that made the damage is split: the part gets a milder or cleverer step of its own.
Everything else stays as it was. If no step did it (somebody else's weights, a side effect of another step), a repair is
appended. Every recipe is checked against the shapes as a submission is, so that it can be run as it is.

    - outlier_channels: quantized: AWQ, which scales such channels; pruned: SparseGPT.
    - aligned: quantized: GPTQ, pruned: SparseGPT, which move the error away from where it hurts.
    - low_rank: a low-rank repair of the part.
    - size, unclear: two bits more, or half the sparsity; nothing if no damage is shown.
    - sheltered: one bit more, or three quarters of the sparsity.
    - removed, router: the part is left as it was.
    - norm: the norm is left out of the step, or tweaked if no step changed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.contracts.errors import HemostatError
from app.kinds.attribute.report import Cause, Treatment
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight
from app.models.steps import check_one, check_recipe
from app.recipes.base import Calibrated, Step
from app.recipes.recipe import STEPS, Recipe
from workers.analysis.numerals import counted
from workers.diagnosis.attribute.sites import Site
from workers.measuring.subject import Subject, fields_of, recipe_of, reported_steps

Fields = dict[str, Any]
REPAIR_RANK, MOST_BITS = 16, 8
_KEPT_BY_QUANTIZERS = ("layers", "modules", "bits", "group_size", "symmetric", "form")
_KEPT_BY_PRUNERS = ("layers", "modules", "sparsity", "pattern")


@dataclass(frozen=True)
class Untreated:
    """The candidate before its recipe, the recipe, and the unmodified model. `made_of`: of each layer of the candidate
    the one of `origin` that it was made of, None for a new one; None altogether where that is not recorded."""

    origin: CheckpointInfo
    recipe: Recipe
    reference: CheckpointInfo
    made_of: tuple[int | None, ...] | None = None


def treat(
    patient: Untreated, diagnoses: Sequence[tuple[Site, Cause]], *, unshown: tuple[int, int] | None = None
) -> Treatment:
    """One recipe for these parts together; `why` shows what is done, or why nothing is. `unshown`: tokens and documents
    on which no damage of other parts was shown, which are left as they are."""
    wanted = [(site, cause) for site, cause in diagnoses if cause != "negligible"]
    if not wanted:
        negligible = "nothing to treat: what it costs is negligible"
        return Treatment(recipe=None, why=negligible if unshown is None else waiting(*unshown))
    if patient.origin.quantization is not None:
        return Treatment(
            recipe=None,
            why="the candidate's weights are packed, and steps change plain ones: make it again from the reference",
        )
    if Subject(patient.origin, patient.recipe, 0).renumbered:
        return Treatment(recipe=None, why="a step of the recipe renumbers the layers: parts cannot be distinguished")
    steps: list[Fields] = [fields_of(step) for step in patient.recipe]
    words: list[str] = []
    for site, cause in wanted:
        steps, told_ = _one(patient, steps, site, cause)
        words.append(f"{site.name}: {told_}")
    try:
        recipe = recipe_of(steps)
        check_recipe(patient.origin, recipe, pointer="", reference=patient.reference)
    except (HemostatError, ValidationError) as error:
        why = error.detail if isinstance(error, HemostatError) else "the steps cannot be written so"
        return Treatment(recipe=None, why=f"{'; '.join(words)}: refused, {why}")
    if recipe == patient.recipe:
        return Treatment(recipe=None, why="; ".join(words))
    return Treatment(recipe=reported_steps(recipe), why="; ".join(words))


def on_text(tokens: int, documents: int) -> str:
    """So many tokens of so many documents."""
    return f"{counted(tokens, 'token')} of {counted(documents, 'document')}"


def waiting(tokens: int, documents: int) -> str:
    """Why nothing is done for a part whose damage is not shown on so much text."""
    on = on_text(tokens, documents)
    return f"nothing to treat yet: no damage is shown with {on}, more text would tell"


def _within(fields: Fields, context: int | None) -> Fields:
    """A step that is added, in windows of text that the model can read."""
    usual: int = Calibrated.model_fields["calibration_window"].default
    return fields if context is None or context >= usual else fields | {"calibration_window": context}


def _one(patient: Untreated, steps: list[Fields], site: Site, cause: Cause) -> tuple[list[Fields], str]:
    """The steps with one part treated, and what is done in words."""
    made: list[Fields] = []
    words: list[str] = []
    info = patient.origin
    for index, step in enumerate(recipe_of(steps)):
        fields = steps[index]
        inside, outside = _parted(info, step, site)
        milder, told_ = _milder(fields, cause) if inside else (fields, "")
        info = check_recipe(info, (step,), pointer="")
        if not inside or milder == fields:
            made.append(fields)
            continue
        words.append(told_)
        made += _addressed(fields, outside)
        if milder is not None:
            made += _addressed(milder, inside)
    if words:
        return made, " and ".join(words)
    repair, told_ = _appended(site, cause)
    return [*steps, *(_within(step, patient.origin.max_position) for step in repair)], told_


def _parted(info: CheckpointInfo, step: Step, site: Site) -> tuple[list[Weight], list[Weight]]:
    """What a step addresses: within the part, and beside it."""
    names = set(site.tensors)
    chosen = check_one(info, step, pointer="")
    if site.layer is None and site.kind == "head" and info.tied:
        names = {"model.embed_tokens.weight"}
    inside = [weight for weight in chosen if weight.name in names]
    return inside, [weight for weight in chosen if weight.name not in names]


def _addressed(fields: Mapping[str, Any], weights: Sequence[Weight]) -> list[Fields]:
    """The step as few steps that address exactly these weights."""
    plain = {name: value for name, value in fields.items() if name not in {"layers", "modules"}}
    by_modules: dict[tuple[str, ...], list[int]] = {}
    outside = [weight.module for weight in weights if weight.layer is None]
    by_layer: dict[int, list[str]] = {}
    for weight in weights:
        if weight.layer is not None:
            by_layer.setdefault(weight.layer, []).append(weight.module.partition(f"layers.{weight.layer}.")[2])
    for layer, modules in by_layer.items():
        by_modules.setdefault(tuple(modules), []).append(layer)
    made = [plain | {"layers": layers, "modules": list(modules)} for modules, layers in by_modules.items()]
    if outside:
        made.append(plain | {"modules": [module.rpartition(".")[2] for module in outside]})
    return made


def _milder(fields: Fields, cause: Cause) -> tuple[Fields | None, str]:
    """The step for the part alone, None to leave it out; the step itself where it is no step that does damage."""
    kind = str(fields["type"])
    step = STEPS[kind]
    if step.role == "repair":
        return fields, ""
    if cause in {"removed", "router", "norm"}:
        return None, f"left out of {kind}"
    if cause == "low_rank":
        return fields, ""
    if step.graded_by == "bits":
        return _finer(fields, kind, cause)
    if step.graded_by == "sparsity":
        return _denser(fields, kind, cause)
    return None, f"left out of {kind}"


def _finer(fields: Fields, kind: str, cause: Cause) -> tuple[Fields | None, str]:
    kept = {name: fields[name] for name in _KEPT_BY_QUANTIZERS if name in fields}
    plain = STEPS[kind].replaced_by is not None
    if cause == "outlier_channels" and plain and kind != "quantize.awq":
        return {"type": "quantize.awq"} | kept, "AWQ, which spares the channels that carry it"
    if cause == "aligned" and plain and kind != "quantize.gptq":
        return {"type": "quantize.gptq"} | kept, "GPTQ, which moves the error to where it hurts less"
    bits = fields.get("bits", MOST_BITS)
    more = min(MOST_BITS, bits + (1 if cause == "sheltered" else 2))
    if more == bits:
        return None, f"left out of {kind}, which has {MOST_BITS} bits already"
    return fields | {"bits": more}, f"{more:g} bits instead of {bits:g}"


def _denser(fields: Fields, kind: str, cause: Cause) -> tuple[Fields | None, str]:
    kept = {name: fields[name] for name in _KEPT_BY_PRUNERS if name in fields}
    plain = STEPS[kind].replaced_by is not None
    if cause in {"aligned", "outlier_channels"} and plain and kind != "prune.sparsegpt":
        return {"type": "prune.sparsegpt"} | kept, "SparseGPT, which makes the error good with the weights that stay"
    if fields.get("sparsity") is None:
        return None, f"left out of {kind}: its strength is a pattern"
    sparsity = round(float(fields["sparsity"]) * (0.75 if cause == "sheltered" else 0.5), 6)
    return fields | {"sparsity": sparsity}, f"sparsity {sparsity:g} instead of {float(fields['sparsity']):g}"


def _appended(site: Site, cause: Cause) -> tuple[list[Fields], str]:
    """A step after all others, for the part alone."""
    if site.layer is None:
        return [], "no step that is known here repairs what is outside the layers"
    if cause == "norm":
        modules = [site.name.removeprefix(f"layers.{site.layer}.")]
        return [{"type": "norm.tweak", "layers": [site.layer], "modules": modules}], "norm tweaking"
    if site.kind == "expert" or cause == "router":
        return [], "no step that is known here repairs an expert or a router by itself"
    prefix = f"model.layers.{site.layer}."
    weights = [name for name in site.tensors if name.endswith("_proj.weight")]
    modules = list(dict.fromkeys(name.removeprefix(prefix).removesuffix(".weight") for name in weights))
    step: Fields = {"type": "repair.lowrank", "rank": REPAIR_RANK, "layers": [site.layer], "modules": modules}
    return [step], f"low-rank repair, rank {REPAIR_RANK}"
