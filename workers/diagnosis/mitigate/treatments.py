"""The treatments: functions from recipe to recipe with knobs, what each costs in bytes and what is expected of it.

The first expectation (`prior`, the share of the candidate's KL that goes) comes from the measurements in docs/recipes.
It only decides what is tried first. The first trial of a treatment corrects it for all its knobs
(`workers.diagnosis.mitigate.search`).

Treatments come in a fixed order within a recipe. Damage is spread again, and better steps replace others. Then repair
adds back what is still lost, and norms are tuned last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from app.kinds.mitigate.plan import own_windows, takes_own_text
from app.kinds.mitigate.request import TreatmentName
from app.models.steps.dynamic import chooses
from app.recipes.base import Step
from app.recipes.quantize import QuantizeDynamic
from app.recipes.recipe import STEPS, Recipe
from workers.measuring.subject import Fit, Subject, fields_of, recipe_of

Knob = float | int | str | bool | None
Fields = dict[str, Any]
ORDER: Final[tuple[TreatmentName, ...]] = (
    "protect",
    "quantize.dynamic",
    "prune.gradient",
    "repair.lowrank",
    "norm.tweak",
)
_RANKS: Final = (4, 8, 16, 32, 64, 128)
# The hidden size that the priors of repair were measured at.
_MEASURED_SIZE: Final = 576
_MOST_BITS: Final = 8


@dataclass(frozen=True)
class Arm:
    """A treatment with its knobs. `bytes`: expected, more than the candidate's; `prior`: see above."""

    name: TreatmentName
    knobs: tuple[tuple[str, Knob], ...]
    bytes: int
    prior: float

    def __getitem__(self, knob: str) -> Knob:
        return dict(self.knobs)[knob]

    @property
    def key(self) -> str:
        """Names it among all."""
        return self.name + "".join(f" {name}={value}" for name, value in self.knobs)


# Treatments of one recipe, in `ORDER`, at most one of each.
Plan = tuple[Arm, ...]


def arms_of(subject: Subject, name: TreatmentName) -> list[Arm]:
    """Every setting of a treatment that means something for this subject; none where it has nothing to work on."""
    return list(_ARMS[name](subject)) if name in _ARMS else []


def smallest_arm(subject: Subject, wanted: Sequence[TreatmentName]) -> Arm | None:
    """The setting of fewest bytes of all wanted treatments. None if none has any, and where one is wanted of which
    that is not known before the damage was looked for."""
    if "protect" in wanted:
        return None
    return min((arm for name in wanted for arm in arms_of(subject, name)), key=lambda arm: arm.bytes, default=None)


def _no_step(name: TreatmentName) -> str:
    *others, last = [kind for kind, step in STEPS.items() if step.replaced_by == name]
    return f"the candidate's recipe has no step that it could stand for: it replaces {', '.join(others)} or {last}"


# Why a treatment has no arm; of `protect` there are several reasons.
_NO_STEP: Final[Mapping[str, str]] = {
    "quantize.dynamic": _no_step("quantize.dynamic"),
    "prune.gradient": _no_step("prune.gradient"),
    "protect": "the candidate's recipe has no step whose strength could differ from layer to layer",
}


def why_none(subject: Subject, name: TreatmentName) -> str:
    """Why a treatment has no arm for this subject."""
    if subject.origin.quantization is not None:
        return "the candidate came packed, and nothing changes packed weights: treat what it was packed from"
    if name == "protect" and subject.renumbered:
        return "a step of the recipe removes or adds layers, so that its layers cannot be distinguished by number"
    if name == "protect" and not subject.layer_shares:
        return "where the damage sits is not known"
    return _NO_STEP.get(name, "the model has no linear layer that it knows")


def with_arm(plan: Plan, arm: Arm) -> Plan:
    """The plan with one more treatment, in its place."""
    return tuple(sorted((*plan, arm), key=lambda one: ORDER.index(one.name)))


def apply_plan(subject: Subject, plan: Plan, fit: Fit) -> Recipe:
    """The candidate's recipe, treated. Raises pydantic's ValidationError where a step cannot be written so."""
    steps: list[Step] = list(subject.recipe)
    for arm in plan:
        steps = list(recipe_of(_APPLY[arm.name](subject, steps, arm, fit)))
    return tuple(steps)


# --- repair.lowrank


def _repair_arms(subject: Subject) -> Iterator[Arm]:
    if not subject.linears:
        return
    smallest = min(min(weight.shape) for weight in subject.linears)
    sides = sum(sum(weight.shape) for weight in subject.linears)
    thinned = takes_own_text(subject.recipe)
    again = bool(subject.recipe) and all(step.local for step in subject.recipe)
    for rank in _RANKS:
        if rank > smallest // 2:
            break
        # Measured at d = 576: 0.75 and 0.87 of RTN's KL at ranks 16 and 64, 0.16 to 0.3 and 0.43 to 0.55 of Wanda's.
        relative = rank * _MEASURED_SIZE / subject.origin.hidden_size
        prior = min(0.5, 0.25 * (relative / 16) ** 0.4) if thinned else 1 - min(0.9, 0.25 * (16 / relative) ** 0.5)
        yield Arm("repair.lowrank", (("rank", rank), ("iterations", 1)), 2 * rank * sides, prior)
        if again and rank >= 16:
            arm = (("rank", rank), ("iterations", 2))
            yield Arm("repair.lowrank", arm, 2 * rank * sides, prior + 0.02)
        if thinned and rank >= 16:
            # Measured: 0.01 less of the KL goes on text of the kind that is fitted, 0.05 to 0.16 more on another. Which
            # of both a job's documents are is not known, so as much is expected: of equals the quicker comes first.
            own = (("rank", rank), ("iterations", 1), ("own_text", True))
            yield Arm("repair.lowrank", own, 2 * rank * sides, prior)


def _repair(_: Subject, steps: Sequence[Step], arm: Arm, fit: Fit) -> list[Fields]:
    step: Fields = {"type": "repair.lowrank", "rank": arm["rank"], "iterations": arm["iterations"]}
    if fit.cheap:
        step |= {"block_epochs": 0, "distill_steps": 0}
    text = fit.fields()
    if dict(arm.knobs).get("own_text"):
        step["own_windows"] = own_windows(text["calibration_windows"])
    return [*map(fields_of, steps), step | text]


# --- quantize.dynamic


def _replaced(subject: Subject, name: TreatmentName) -> list[Step]:
    return [step for step in subject.recipe if step.replaced_by == name]


def _stored(bits: float, group: int | None, *, symmetric: bool) -> float:
    """Bits that a weight takes, a 16-bit scale and, not symmetric, a zero point of its own for each group."""
    return bits + ((16 + (0 if symmetric else bits)) / group if group else 0.0)


def _symmetric(step: Step) -> bool:
    """Whether what replaces a step has no zero points. SmoothQuant's weights have none."""
    return bool(getattr(step, "symmetric", step.type == "quantize.smoothquant"))


def _dynamic_arms(subject: Subject) -> Iterator[Arm]:
    steps = _replaced(subject, "quantize.dynamic")
    if not steps:
        return
    for mixed, extra, prior in ((False, 0.0, 0.5), (True, 0.0, 0.55), (True, 0.5, 0.7), (False, 1.0, 0.8)):
        for half in (False, True):
            added = 0.0
            for step in steps:
                bits, group = step.code_bits or 4.0, _group_of(step)
                if bits + extra > _MOST_BITS:
                    break
                finer = group // 2 if half and group else group
                # NF4 has a scale a group alone.
                own = _symmetric(step)
                old = _stored(bits, group, symmetric=own or step.type == "quantize.nf4")
                added += subject.elements(step) * (_stored(bits + extra, finer, symmetric=own) - old) / 8
            else:
                if half and all((_group_of(step) or 0) < 32 for step in steps):
                    continue
                knobs = (("mixed", mixed), ("extra_bits", extra), ("half_group", half))
                arm = Arm("quantize.dynamic", knobs, round(added), prior + (0.06 if half else 0.0))
                made = [QuantizeDynamic.model_validate(_in_place_of(step, arm)) for step in steps]
                if not mixed or any(map(chooses, made)):  # else it is the same as without, measured for nothing
                    yield arm


def _group_of(step: Step) -> int | None:
    group = getattr(step, "group_size", None)
    return None if group is None else int(group)


def _in_place_of(step: Step, arm: Arm) -> Fields:
    """Dynamic scaling of a quantization's own scheme, by the arm's knobs."""
    group = _group_of(step)
    if arm["half_group"] and group is not None and group >= 32:
        group //= 2
    return {
        "type": "quantize.dynamic",
        "bits": (step.code_bits or 4.0) + float(arm["extra_bits"] or 0),
        "mixed": arm["mixed"],
        "group_size": group,
        "symmetric": _symmetric(step),
        "form": getattr(step, "form", "simulated"),
        "activation_bits": getattr(step, "activation_bits", None),
    }


def _dynamic(_: Subject, steps: Sequence[Step], arm: Arm, fit: Fit) -> list[Fields]:
    cheap: Fields = {"block_epochs": 0} if fit.cheap else {}
    return [
        _in_place_of(step, arm) | cheap | _where(step) | fit.fields()
        if step.replaced_by == "quantize.dynamic"
        else fields_of(step)
        for step in steps
    ]


# --- prune.gradient


def _gradient_arms(subject: Subject) -> Iterator[Arm]:
    steps = _replaced(subject, "prune.gradient")
    if not steps:
        return
    patterned = any(getattr(step, "pattern", None) for step in steps)
    budgets = ("uniform",) if patterned else ("gradient", "uniform")
    for budget in budgets:
        for recovery, prior in ((0, 0.25), (200, 0.45)):
            yield Arm("prune.gradient", (("budget", budget), ("recovery_steps", recovery)), 0, prior)


def _gradient(_: Subject, steps: Sequence[Step], arm: Arm, fit: Fit) -> list[Fields]:
    made = []
    for step in steps:
        if step.replaced_by != "prune.gradient":
            made.append(fields_of(step))
            continue
        recovery = 0 if fit.cheap else int(arm["recovery_steps"] or 0)
        strength = {name: getattr(step, name) for name in ("sparsity", "pattern") if getattr(step, name) is not None}
        gradient: Fields = {"type": "prune.gradient", "budget": arm["budget"]} | strength
        if recovery:
            # A bound in steps alone: a result that hangs on the clock could not be had again.
            gradient |= {"recovery_steps": recovery}
        if fit.cheap:
            gradient |= {"passes": 2, "reconstruct_epochs": 2}
        made.append(gradient | _where(step) | fit.fields())
    return made


# --- norm.tweak


def _tweak_arms(subject: Subject) -> Iterator[Arm]:
    if subject.linears:
        for steps, rate in ((20, 1e-3), (60, 1e-3), (20, 1e-4)):
            yield Arm("norm.tweak", (("steps", steps), ("learning_rate", rate)), 0, 0.05)


def _tweak(_: Subject, steps: Sequence[Step], arm: Arm, fit: Fit) -> list[Fields]:
    # it is training and nothing else: a cheap trial has a quarter of it, or it would be no cheaper than a full one
    trained = arm["steps"]
    assert isinstance(trained, int)  # noqa: S101 - its knob, see above
    taken = max(1, trained // 4) if fit.cheap else trained
    step: Fields = {"type": "norm.tweak", "steps": taken, "learning_rate": arm["learning_rate"]}
    return [*map(fields_of, steps), step | fit.fields()]


# --- protect


def _protect_arms(subject: Subject) -> Iterator[Arm]:
    if subject.renumbered or not subject.layer_shares or subject.origin.layers < 2:
        return
    graded = [step for step in subject.recipe if step.graded_by == "bits" and getattr(step, "bits", 8) < _MOST_BITS]
    pruned = [step for step in subject.recipe if step.graded_by == "sparsity" and getattr(step, "sparsity", None)]
    if not graded and not pruned:
        return
    counts = dict.fromkeys(max(1, ceil(subject.origin.layers * share)) for share in (0.125, 0.25, 0.5))
    for count in counts:
        if count >= subject.origin.layers:
            continue
        worst = worst_layers(subject, count)
        share = sum(subject.layer_shares.get(layer, 0.0) for layer in worst)
        for by in (1, 2):
            added = sum(
                subject.elements(step, worst) * min(by, _MOST_BITS - getattr(step, "bits", 8)) / 8 for step in graded
            )
            # Rounding error has a quarter of its power with each bit, and KL goes with the power. Sparsity is only
            # moved from these layers to the others, which then lose more.
            prior = share * (1 - 4.0**-by) if graded else max(0.0, share - count / subject.origin.layers) * 0.2 * by
            if prior > 0:
                yield Arm("protect", (("layers", count), ("by", by)), round(added), prior)


def worst_layers(subject: Subject, count: int) -> tuple[int, ...]:
    """The layers with most of the damage, in the model's order."""
    order = sorted(subject.layer_shares, key=lambda layer: (-subject.layer_shares[layer], layer))
    return tuple(sorted(order[:count]))


def _protect(subject: Subject, steps: Sequence[Step], arm: Arm, _: Fit) -> list[Fields]:
    worst = set(worst_layers(subject, int(arm["layers"] or 1)))
    by = int(arm["by"] or 1)
    made: list[Fields] = []
    for step in steps:
        fields, own = fields_of(step), subject.layers_of(step)
        inside = [layer for layer in own if layer in worst]
        outside = [layer for layer in own if layer not in worst]
        if not inside or not outside:
            made.append(fields)
        elif step.graded_by == "bits":
            bits = getattr(step, "bits", _MOST_BITS)
            made.append(fields | {"layers": inside, "bits": min(_MOST_BITS, bits + by)})
            made.append(fields | {"layers": outside})
        elif step.graded_by == "sparsity" and (sparsity := getattr(step, "sparsity", None)):
            less = sparsity * 0.15 * by
            more = less * subject.elements(step, inside) / max(1, subject.elements(step, outside))
            more = min(more, (1 - sparsity) / 2)
            less = more * subject.elements(step, outside) / max(1, subject.elements(step, inside))
            made.append(fields | {"layers": inside, "sparsity": round(sparsity - less, 6)})
            made.append(fields | {"layers": outside, "sparsity": round(sparsity + more, 6)})
        else:
            made.append(fields)
    return made


def _where(step: Step) -> Fields:
    found = fields_of(step)
    return {name: found[name] for name in ("layers", "modules") if name in found}


_ARMS: Final[Mapping[str, Callable[[Subject], Iterator[Arm]]]] = {
    "repair.lowrank": _repair_arms,
    "quantize.dynamic": _dynamic_arms,
    "prune.gradient": _gradient_arms,
    "norm.tweak": _tweak_arms,
    "protect": _protect_arms,
}
_APPLY: Final[Mapping[str, Callable[[Subject, Sequence[Step], Arm, Fit], list[Fields]]]] = {
    "repair.lowrank": _repair,
    "quantize.dynamic": _dynamic,
    "prune.gradient": _gradient,
    "norm.tweak": _tweak,
    "protect": _protect,
}
