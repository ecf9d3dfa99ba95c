"""Fields that decide nothing beside another field of their step: named before the job is queued, not passed over.

A field that stands at its default is not taken to have been asked for. Nor is a `seed`, which may be given to every
step of a recipe alike. Where a knob turns the field that decides, the other one counts at some of its values.
"""

from collections.abc import Collection, Mapping
from math import ceil
from typing import Final

from app.contracts.errors import ErrorCode, HemostatError
from app.recipes.base import Calibrated, Step
from app.recipes.prune import CalibratedSparse, PruneGradient
from app.recipes.quantize import QuantizeDynamic, QuantizeKvCache
from app.recipes.recipe import Recipe
from app.recipes.repair import RepairLowrank

# Fields, those that make them idle, and what to tell and do.
Idle = tuple[tuple[str, ...], tuple[str, ...], str, str]
# What a range times M may be above one half for rounding alone.
_HAIR: Final = 1e-6
_TEXT: Final = ("calibration", "calibration_windows", "calibration_window")
# By type: what makes the step read its text, as its contract decides it.
_READS: Final[dict[str, tuple[str, str]]] = {
    "prune.magnitude": ("allocation", 'with allocation "owl" alone'),
    "prune.layers": ("layers", "where no layers are named"),
    "quantize.fp8": ("activations", 'with activations "static" alone'),
    "quantize.activations": ("dynamic", "with dynamic false alone"),
}


def check_idle(recipe: Recipe, *, pointer: str, turned: Mapping[int, Collection[str]] | None = None) -> None:
    """Raises RECIPE_NOT_APPLICABLE with the pointer of the first field that decides nothing where it stands. `turned`:
    fields that knobs turn, by the step's index."""
    for index, step in enumerate(recipe):
        by_knob = (turned or {}).get(index, ())
        for fields, because, detail, hint in idle(step):
            if any(one in by_knob for one in because):
                continue
            for field in fields:
                if field in by_knob or getattr(step, field) != _default(step, field):
                    raise HemostatError(
                        ErrorCode.RECIPE_NOT_APPLICABLE,
                        f"{field} decides nothing here: {detail}",
                        hint=f"leave {field} out, or {hint}",
                        pointer=f"{pointer}/{index}/{field}",
                    )


def idle(step: Step) -> list[Idle]:
    """What decides nothing in a step as it stands."""
    found: list[Idle] = []
    if isinstance(step, CalibratedSparse):
        found += _sparse(step)
    if isinstance(step, Calibrated):
        found += _text(step)
    if isinstance(step, QuantizeKvCache):
        found += _cache(step)
    if isinstance(step, PruneGradient):
        found += _gradient(step)
    if isinstance(step, QuantizeDynamic):
        found += _dynamic(step)
    if isinstance(step, RepairLowrank):
        found += _repair(step)
    return found


def _sparse(step: CalibratedSparse) -> list[Idle]:
    found: list[Idle] = []
    if step.pattern is not None:
        told = f"pattern {step.pattern} zeros so many of every run of a row, whatever the scope"
        found.append((("scope",), ("pattern",), told, "give sparsity in place of pattern"))
        found += _one_n(step)
    if step.allocation != "owl":
        found.append((("owl_threshold", "owl_range"), ("allocation",), "it is OWL's", 'give allocation "owl"'))
    return found


def _one_n(step: CalibratedSparse) -> list[Idle]:
    """Where no N is nearer to OWL's share of a layer times M than the pattern's, whatever its outliers.

    At one half, another N may be as near and none nearer: what is made would hang on the order of layers.
    """
    kept, of = step.n_of_m()
    if step.owl_reach * of > 0.5 + _HAIR:
        return []
    if kept in (1, of - 1):
        told = f"each layer keeps at least 1 and less than {of} of every {of}, on average {kept}: all keep {kept}"
        hint = "give a pattern that keeps 2 to M - 2 of every M, such as 4:8"
        return [(("allocation",), ("pattern",), told, hint)]
    told = f"within owl_range {step.owl_range:g} every layer's share rounds to {step.pattern}"
    hint = f"give owl_range more than {ceil(5000 / of) / 10000:g}"
    return [(("allocation",), ("pattern", "owl_range"), told, hint)]


def _text(step: Calibrated) -> list[Idle]:
    if step.reads_text:
        return []
    because, when = _READS[step.type]
    return [(_TEXT, (because,), f"{step.type} looks at text {when}", f"change {because}")]


def _cache(step: QuantizeKvCache) -> list[Idle]:
    if step.dtype is None:
        return []
    told = f"the engine stores {step.dtype} with a scale of 1"
    return [(("group_size", "symmetric"), ("dtype",), told, "give k_bits and v_bits in place of dtype")]


def _gradient(step: PruneGradient) -> list[Idle]:
    if step.reconstruct:
        return []
    return [(("reconstruct_epochs",), ("reconstruct",), "reconstruct is false", "give reconstruct true")]


def _dynamic(step: QuantizeDynamic) -> list[Idle]:
    if step.tuning_steps or step.block_epochs:
        return []
    told, hint = "neither blocks are fitted nor the model is tuned", "give block_epochs or tuning_steps"
    return [(("tune",), ("tuning_steps", "block_epochs"), told, hint)]


def _repair(step: RepairLowrank) -> list[Idle]:
    if step.distill_steps:
        return []
    return [(("distill_s",), ("distill_steps",), "distill_steps is 0", "give distill_steps")]


def _default(step: Step, field: str) -> object:
    value: object = type(step).model_fields[field].get_default(call_default_factory=True)
    return value
