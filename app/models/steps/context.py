"""Longer contexts by other rotary frequencies: what the configuration says before and after."""

from dataclasses import replace
from typing import Any

from app.contracts.errors import not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight
from app.models.shapes import LAYOUTS, dimension
from app.models.steps.layers import with_config
from app.recipes.base import Step
from app.recipes.context import ContextNtk, ContextYarn
from app.recipes.recipe import Recipe

# Architectures whose configuration class refuses every scaling but LongRoPE, and reads YaRN's name for it.
LONGROPE_ALONE = frozenset({"Phi3ForCausalLM"})


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """No weight: the configuration alone changes.

    Raises RECIPE_NOT_APPLICABLE for a model without rotary positions, and for one whose frequencies are scaled
    already or differ between kinds of layers. So is a configuration that takes no such scaling, and layers or modules
    (all layers turn alike).
    """
    for field in ("layers", "modules"):
        if getattr(step, field) is not None:
            raise not_applicable(
                f"{step.type} acts on the whole model and takes no {field}",
                hint=f"leave {field} out",
                pointer=f"{pointer}/{field}",
            )
    rope = rope_of(info.config)
    if info.max_position is None or info.architecture not in LAYOUTS:
        raise not_applicable(
            f"{info.architecture} has no known rotary positions",
            hint="it takes " + ", ".join(sorted(LAYOUTS)),
            pointer=pointer,
        )
    if any(isinstance(value, dict) for value in rope.values()):
        raise not_applicable(
            f"{info.architecture} has different rotary frequencies per kind of layer",
            hint="use a model with one set of frequencies for all layers",
            pointer=pointer,
        )
    if rope.get("rope_type", "default") != "default":
        raise not_applicable(
            f"the rotary frequencies are already scaled ({rope['rope_type']})",
            hint="give one context step, with the whole factor, on the unscaled model",
            pointer=pointer,
        )
    if info.architecture in LONGROPE_ALONE and not isinstance(step, ContextNtk):
        raise not_applicable(
            f"the configuration of {info.architecture} supports only its own rotary scaling",
            hint="use context.ntk, which changes only the base",
            pointer=f"{pointer}/type",
        )
    return []


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """The same tensors, other positions."""
    config = scaled(info, step)
    return replace(with_config(info, config), max_position=int(config["max_position_embeddings"]))


def follow(before: Recipe, step: Step, pointer: str) -> None:
    """Raises RECIPE_NOT_APPLICABLE behind another context step: NTK leaves no trace but another base, and what comes
    after it would take the longer context for the one that the model was trained in."""
    for other in before:
        if other.role == "context":
            raise not_applicable(
                f"{other.type} has scaled the rotary frequencies already",
                hint="give one context step, with the whole factor",
                pointer=pointer,
            )


def rope_of(config: dict[str, Any]) -> dict[str, Any]:
    """Base and scaling, from the form of transformers 5 or from the older one."""
    if isinstance(config.get("rope_parameters"), dict):
        return dict(config["rope_parameters"])
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    return {"rope_theta": float(config.get("rope_theta") or 10000.0)} | dict(scaling) | {"rope_type": kind}


def scaled(info: CheckpointInfo, step: Step) -> dict[str, Any]:
    """The configuration with `factor` times the positions."""
    config = dict(info.config)
    rope = rope_of(config)
    factor = float(getattr(step, "factor", 1.0))
    original = dimension(config, "max_position_embeddings")
    if isinstance(step, ContextNtk):
        heads = dimension(config, "num_attention_heads")
        default = LAYOUTS[info.architecture].head_dim or dimension(config, "hidden_size") // heads
        turning = int(dimension(config, "head_dim", default) * float(rope.get("partial_rotary_factor", 1.0)))
        rope["rope_theta"] = float(rope["rope_theta"]) * factor ** (turning / (turning - 2))
    else:
        rope |= {"rope_type": "linear", "factor": factor}
    if isinstance(step, ContextYarn):
        rope |= {
            "rope_type": "yarn",
            "original_max_position_embeddings": original,
            "beta_fast": step.beta_fast,
            "beta_slow": step.beta_slow,
        }
    for old in ("rope_theta", "rope_scaling"):
        config.pop(old, None)
    return config | {"rope_parameters": rope, "max_position_embeddings": int(factor * original)}
