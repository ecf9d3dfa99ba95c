"""Treatments of a mitigate job in words: `quantize.dynamic at 3 bits, groups of 32, then repair.lowrank rank 16`.

A treatment is named as steps and requests name it; of its knobs only those are reported that are not what a recipe has
without them. Bits, groups and sparsity are read from the treated recipe: a treatment's own knobs tell them relative to
the candidate's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from app.kinds.mitigate.report import Treatment
from app.recipes.recipe import STEPS

UNTREATED: Final = "the candidate as it is"

Step = Mapping[str, Any]


def described(treatments: Sequence[Treatment], recipe: Sequence[Step]) -> str:
    """The treatments of one recipe in words, in their order; `the candidate as it is` where there is none.

    `recipe`: the treated one as a report holds it, defaults left out.
    """
    return ", then ".join(_one(treatment, recipe) for treatment in treatments) or UNTREATED


def _one(treatment: Treatment, recipe: Sequence[Step]) -> str:
    how, *more = _WORDS.get(treatment.name, _any)(treatment, recipe)
    return ", ".join([f"{treatment.name} {how}" if how else treatment.name, *filter(None, more)])


def _repair(of: Treatment, _: Sequence[Step]) -> list[str]:
    rounds = _unless_default(of, "iterations")
    own = "own text" if of.knobs.get("own_text") else ""
    return [f"rank {of.knobs.get('rank')}", f"{rounds} iterations" if rounds else "", own]


def _dynamic(of: Treatment, recipe: Sequence[Step]) -> list[str]:
    own = [step for step in recipe if step.get("type") == of.name]
    mixed = "mixed" if of.knobs.get("mixed") else ""
    if not own:  # refused before its recipe was written
        more = of.knobs.get("extra_bits")
        return ["", f"{_number(more)} more bits" if more else "", mixed, "half groups" if _half(of) else ""]
    usual = STEPS[of.name].model_fields["group_size"].default
    groups = {step.get("group_size", usual) for step in own}
    sizes = _listed(group for group in groups if group is not None)
    told = [f"groups of {sizes}" if sizes else "", "per channel" if None in groups else ""]
    bits = _listed(step["bits"] for step in own)
    return [f"at {bits} bits", mixed, *(told if groups != {usual} else [])]


def _half(of: Treatment) -> bool:
    return bool(of.knobs.get("half_group"))


def _gradient(of: Treatment, recipe: Sequence[Step]) -> list[str]:
    own = [step for step in recipe if step.get("type") == of.name]
    shares = _listed(step["sparsity"] for step in own if "sparsity" in step)
    patterns = sorted({str(step["pattern"]) for step in own if "pattern" in step})
    strength = " and ".join([*([f"sparsity {shares}"] if shares else []), *patterns])
    budget, steps = _unless_default(of, "budget"), of.knobs.get("recovery_steps")
    words = [f"{budget} budget" if budget else "", f"{steps} recovery steps" if steps else ""]
    return [f"at {strength}" if strength else "", *words]


def _tweak(of: Treatment, _: Sequence[Step]) -> list[str]:
    steps, rate = _unless_default(of, "steps"), _unless_default(of, "learning_rate")
    told = [f"{steps} steps" if steps else "", f"learning rate {_number(rate)}" if rate else ""]
    return [*filter(None, told)] or [""]


def _protect(of: Treatment, recipe: Sequence[Step]) -> list[str]:
    graded = {STEPS[step["type"]].graded_by for step in recipe}
    layers, by = of.knobs.get("layers"), of.knobs.get("by")
    told = [f"{layers} layer{'' if layers == 1 else 's'}"]
    if "bits" in graded:
        told.append(f"{by} bit{'' if by == 1 else 's'} more")
    if "sparsity" in graded:
        told.append(f"{'much ' if by == 2 else ''}less sparsity there, more in the others")
    return told


def _any(of: Treatment, _: Sequence[Step]) -> list[str]:
    return ["", *(f"{name} {value}" for name, value in of.knobs.items())]


_WORDS: Final[Mapping[str, Callable[[Treatment, Sequence[Step]], list[str]]]] = {
    "repair.lowrank": _repair,
    "quantize.dynamic": _dynamic,
    "prune.gradient": _gradient,
    "norm.tweak": _tweak,
    "protect": _protect,
}


def _unless_default(of: Treatment, knob: str) -> object:
    """The knob's value, None where a step without it has the same."""
    value = of.knobs.get(knob)
    return None if value == STEPS[of.name].model_fields[knob].default else value


def _listed(values: Iterable[float]) -> str:
    """`3`, `3 and 4`, `3, 4 and 5`; empty where there is none."""
    *others, last = [_number(value) for value in sorted(set(values))] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
