"""Pruning: patterns divide, methods that look at activations take dense models, and parts go in numbers that leave a
model which transformers and vLLM take."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, TensorInfo
from app.models.modules import Weight, check_step
from app.models.shapes import LAYOUTS, dimension, expected_tensors
from app.models.steps.layers import HEADS_DIVIDE_HIDDEN, relayered
from app.recipes.base import Step
from app.recipes.prune import CalibratedSparse, PruneChannels, PruneGradient, PruneHeads, PruneLayers


@dataclass(frozen=True)
class Heads:
    """Attention of a model: `query` heads of `size` each, in `groups` that share a key and a value head."""

    query: int
    groups: int
    size: int

    @property
    def each(self) -> int:
        """Query heads of a group."""
        return self.query // self.groups


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the step addresses. Raises what `check_step` raises, and RECIPE_NOT_APPLICABLE for a number of
    parts that cannot go, with the nearest that can. If the step looks at activations or drops parts, mixtures of
    experts, unknown layouts and modules outside the decoder's layers are refused too."""
    if isinstance(step, CalibratedSparse | PruneGradient) and step.reads_text:
        return _check_calibrated(info, step, pointer)
    if isinstance(step, PruneLayers):
        return _check_layers(info, step, pointer)
    if isinstance(step, PruneHeads | PruneChannels):
        return _check_parts(info, step, pointer)
    return check_step(info, step, pointer=pointer)


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """What the checkpoint will be. Which layers go by influence is not known yet, but all layers are alike."""
    if isinstance(step, PruneLayers):
        gone = set(step.layers or range(info.layers - layers_to_go(info, step), info.layers))
        kept = [layer for layer in range(info.layers) if layer not in gone]
        return _resized(info, relayered(info.architecture, info.config, kept))
    if isinstance(step, PruneHeads):
        return _resized(info, with_groups(info, heads_of(info).groups - groups_to_go(info, step)))
    if isinstance(step, PruneChannels):
        return _resized(info, with_channels(info.config, channels_of(info) - channels_to_go(info, step)))
    return info


def order(info: CheckpointInfo, step: Step) -> list[int | None] | None:
    """The layers that stay; None if influence decides."""
    if isinstance(step, PruneLayers) and step.layers is None:
        return None
    gone = set(step.layers or ()) if isinstance(step, PruneLayers) else ()
    return [layer for layer in range(info.layers) if layer not in gone]


def share(info: CheckpointInfo, step: Step, field: str) -> float | None:
    """Layers, groups of heads or channels that go, over all that there are."""
    if field not in {"layers", "count", "ratio"}:
        return None
    if isinstance(step, PruneLayers):
        return layers_to_go(info, step) / info.layers
    if isinstance(step, PruneHeads):
        return groups_to_go(info, step) / heads_of(info).groups
    if isinstance(step, PruneChannels):
        return channels_to_go(info, step) / channels_of(info)
    return None


# ---- how many parts there are, and go


def heads_of(info: CheckpointInfo) -> Heads:
    """The attention heads of a known layout."""
    layout, config = LAYOUTS[info.architecture], info.config
    query = dimension(config, "num_attention_heads")
    groups = dimension(config, "num_key_value_heads", layout.kv_heads or query)
    return Heads(query, groups, dimension(config, "head_dim", layout.head_dim or max(info.hidden_size // query, 1)))


def channels_of(info: CheckpointInfo) -> int:
    """Inner channels of the MLP."""
    return dimension(info.config, "intermediate_size")


def layers_to_go(info: CheckpointInfo, step: PruneLayers) -> int:
    """How many layers go."""
    if step.layers is not None:
        return len(set(step.layers))
    return step.count if step.count is not None else round((step.ratio or 0) * info.layers)


def groups_to_go(info: CheckpointInfo, step: PruneHeads) -> int:
    """How many groups of heads each layer loses; `count` is in query heads."""
    heads = heads_of(info)
    return step.count // heads.each if step.count is not None else round((step.ratio or 0) * heads.groups)


def channels_to_go(info: CheckpointInfo, step: PruneChannels) -> int:
    """How many channels each layer loses."""
    return step.count if step.count is not None else round((step.ratio or 0) * channels_of(info))


# ---- what the configuration becomes


def with_groups(info: CheckpointInfo, groups: int) -> dict[str, Any]:
    """With so many groups of heads of the size that they have.

    vLLM's Qwen2 takes the head size to be hidden size over heads, whatever the configuration says. The same network in
    Llama's form, with biases (those of `o_proj` are 0), is served as it is.
    """
    heads = heads_of(info)
    config = dict(info.config) | {
        "num_attention_heads": groups * heads.each,
        "num_key_value_heads": groups,
        "head_dim": heads.size,
    }
    if info.architecture == "Qwen2ForCausalLM":
        for key in ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"):
            config.pop(key, None)
        defaults = {"max_position_embeddings": 32768, "bos_token_id": None, "eos_token_id": None}
        config = defaults | config
        config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": True}
        config |= {"mlp_bias": False, "tie_word_embeddings": info.tied}
    return config


def with_channels(config: dict[str, Any], channels: int) -> dict[str, Any]:
    """With so many inner channels of the MLP."""
    return dict(config) | {"intermediate_size": channels}


def _resized(info: CheckpointInfo, config: dict[str, Any]) -> CheckpointInfo:
    architecture = str(config["architectures"][0]) if config.get("architectures") else info.architecture
    shapes = expected_tensors(architecture, config) or {}
    plain = next(iter(info.tensors.values()))
    tensors = {
        name: TensorInfo(known.dtype if known else plain.dtype, shape, known.file if known else plain.file)
        for name, shape, known in ((name, shape, info.tensors.get(name)) for name, shape in shapes.items())
    }
    return replace(
        info,
        config=config,
        architecture=architecture,
        layers=dimension(config, "num_hidden_layers"),
        tensors=tensors,
        bytes=sum(tensor.bytes for tensor in tensors.values()),
    )


# ---- refusals


def _check_calibrated(info: CheckpointInfo, step: CalibratedSparse | PruneGradient, pointer: str) -> list[Weight]:
    chosen = check_step(info, step, pointer=pointer)
    _refuse_unless_dense(info, step, pointer)
    for weight in chosen:
        if weight.layer is None:
            raise _not_applicable(
                f"{step.type} looks at the inputs of the decoder's layers; {weight.name} is outside them",
                "prune it with prune.magnitude, or name modules of the layers",
                f"{pointer}/modules",
            )
    return chosen


def _check_layers(info: CheckpointInfo, step: PruneLayers, pointer: str) -> list[Weight]:
    if step.modules is not None:
        raise _not_applicable("prune.layers drops whole layers, no modules", "leave modules out", f"{pointer}/modules")
    chosen = check_step(info, step, pointer=pointer)
    if step.layers is None:
        _refuse_unless_dense(info, step, pointer)
        field = "count" if step.count is not None else "ratio"
        count, works = layers_to_go(info, step), range(1, info.layers)
        if count not in works:
            raise _wrong_number(count, "layer", f"the model has {info.layers}", works, info.layers, field, pointer)
    else:
        _refuse_unknown_layout(info, step, pointer)
        if len(set(step.layers)) == info.layers:
            raise _not_applicable(
                f"the step drops all {info.layers} layers of the model",
                "keep at least one",
                f"{pointer}/layers",
            )
    return chosen


def _check_parts(info: CheckpointInfo, step: PruneHeads | PruneChannels, pointer: str) -> list[Weight]:
    for field in ("layers", "modules"):
        if getattr(step, field) is not None:
            raise _not_applicable(
                f"{step.type} takes the same number from every layer, since an engine knows one number for all",
                f"leave {field} out",
                f"{pointer}/{field}",
            )
    chosen = check_step(info, step, pointer=pointer)
    _refuse_unless_dense(info, step, pointer)
    field = "count" if step.count is not None else "ratio"
    if isinstance(step, PruneChannels):
        count, total = channels_to_go(info, step), channels_of(info)
        if count not in range(1, total):
            why = f"an MLP has {total}"
            raise _wrong_number(count, "channel", why, range(1, total), total, field, pointer)
        return chosen
    if info.config.get("use_sliding_window") and info.architecture == "Qwen2ForCausalLM":
        raise _not_applicable(
            "heads of a Qwen2 with sliding windows cannot go: no engine here serves it in another head size",
            "prune channels or layers instead",
            pointer,
        )
    heads = heads_of(info)
    works = [gone * heads.each for gone in range(1, heads.groups) if _divides(info, (heads.groups - gone) * heads.each)]
    count = step.count if step.count is not None else groups_to_go(info, step) * heads.each
    if count not in works:
        why = f"a layer has {heads.query}, in groups of {heads.each} with one key and value head"
        if count % heads.each == 0 and 0 < count < heads.query:
            why = f"the {heads.query - count} that stay do not divide the hidden size {info.hidden_size}"
        raise _wrong_number(count, "attention head", why, works, heads.query, field, pointer)
    return chosen


def _divides(info: CheckpointInfo, heads: int) -> bool:
    as_llama = info.architecture == "Qwen2ForCausalLM"
    return info.hidden_size % heads == 0 or not (as_llama or info.architecture in HEADS_DIVIDE_HIDDEN)


def _refuse_unless_dense(info: CheckpointInfo, step: Step, pointer: str) -> None:
    _refuse_unknown_layout(info, step, pointer)
    if LAYOUTS[info.architecture].mixture:
        raise _not_applicable(
            f"{step.type} looks at activations, which takes a dense model; {info.architecture} is a mixture of experts",
            "prune.magnitude, and prune.layers with named layers, take mixtures",
            f"{pointer}/type",
        )


def _refuse_unknown_layout(info: CheckpointInfo, step: Step, pointer: str) -> None:
    if info.architecture not in LAYOUTS:
        raise _not_applicable(
            f"{step.type} must know the layout of the model; that of {info.architecture} is not known",
            f"known are {', '.join(sorted(LAYOUTS))}",
            f"{pointer}/type",
        )


def _wrong_number(
    count: int, part: str, why: str, works: Iterable[int], total: int, field: str, pointer: str
) -> HemostatError:
    numbers = list(works)
    below = max((one for one in numbers if one < count), default=None)
    above = min((one for one in numbers if one > count), default=None)
    near = [one for one in (below, above) if one is not None]
    told = " and ".join(f"{one} (ratio {one / total:.4g})" for one in near)
    told_count = f"{count} {part}{'' if count == 1 else 's'} cannot go" if count else f"no {part} would go"
    return _not_applicable(
        f"{told_count}: {why}",
        f"the nearest counts that work: {told}" if near else "no count works for this model",
        f"{pointer}/{field}",
    )


def _not_applicable(detail: str, hint: str, pointer: str) -> HemostatError:
    return HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, detail, hint=hint, pointer=pointer)
