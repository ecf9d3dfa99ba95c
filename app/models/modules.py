"""Which weights a recipe's step addresses, from tensor names and shapes alone.

A step addresses weight matrices by layer and by module kind. A kind is the module's own name (`q_proj`), or
a group (`attention`, `mlp`, `experts`, `shared_expert`, `router`). It may be a dotted end of the module's path
(`self_attn.q_proj`, `experts.0.w1`), or a module outside the layers: `embed_tokens`, `lm_head`. Mixtral's w1, w3, w2
also answer to `gate_proj`, `up_proj`, `down_proj`. Without kinds a step takes every linear layer of the decoder,
experts included; routers, embeddings and head only when named, norms never. On a model with tied embeddings
`embed_tokens` and `lm_head` are the same matrix: naming either changes both, and the model stays tied.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

from app.contracts.errors import ErrorCode, HemostatError, not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.nearest import suggestion
from app.recipes.base import Sparse, Step
from app.recipes.quantize import QuantizeKvCache

LINEAR_KINDS = frozenset(
    {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "dense"}
    | {"gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3", "fc1", "fc2"}
)
ROUTER_KINDS = frozenset({"gate", "shared_expert_gate", "router"})
_MIXTRAL = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
_ATTENTION = frozenset({"self_attn", "attn", "attention", "self_attention"})
_FEEDFORWARD = frozenset({"mlp", "block_sparse_moe", "feed_forward", "ffn"})
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "tok_embeddings"})
FLOATS = frozenset({"BF16", "F16", "F32"})


@dataclass(frozen=True)
class Weight:
    """One weight matrix: its tensor's name, the module's path, its layer (None outside), the kinds it answers to."""

    name: str
    module: str
    layer: int | None
    kinds: frozenset[str]
    linear: bool
    shape: tuple[int, ...]
    dtype: str

    def answers_to(self, kind: str) -> bool:
        """Whether a filter's `kind` means this weight."""
        return kind in self.kinds or ("." in kind and f".{self.module}".endswith(f".{kind}"))


def weights_of(info: CheckpointInfo) -> list[Weight]:
    """Every tensor that a step could address, in the model's order: layers by number, then by name."""
    found = []
    for name, tensor in info.tensors.items():
        module, _, part = name.rpartition(".")
        if len(tensor.shape) < 2 or part == "bias":
            continue
        if part != "weight":
            if len(tensor.shape) == 2 and "experts" not in module.split("."):
                continue
            module = name  # fused experts: a parameter without a module of its own
        if info.tied and module == "lm_head":
            continue  # a second copy of the embedding, which no engine reads
        layer, kinds, linear = _kinds(module, tied=info.tied)
        found.append(
            Weight(
                name,
                module,
                layer,
                kinds,
                linear and part == "weight" and len(tensor.shape) == 2,
                tensor.shape,
                tensor.dtype,
            )
        )
    return sorted(found, key=lambda weight: natural_key(weight.name))


def select(info: CheckpointInfo, step: Step, *, pointer: str = "") -> list[Weight]:
    """The weights that `step` addresses; at least one.

    Raises `HemostatError(UNKNOWN_MODULE)` for a layer that the model has not, and for a kind that no weight of those
    layers answers to, with the nearest valid one. `RECIPE_NOT_APPLICABLE` for weights that are no linear layers of a
    known layout, are packed, or of a dtype that is not bf16, f16 or f32. `pointer` is the step's.
    """
    if info.quantization is not None:
        raise not_applicable(
            f"the checkpoint is packed ({info.scheme}); a recipe changes plain weights",
            hint="apply the recipe to the plain model, or compare the packed one with an empty recipe",
            pointer=pointer.rpartition("/")[0],
        )
    weights = weights_of(info)
    check_layers(info, step, pointer)
    wanted = [w for w in weights if step.layers is None or w.layer is None or w.layer in set(step.layers)]
    if step.modules is None:
        chosen = [w for w in wanted if w.layer is not None and not (w.kinds & ROUTER_KINDS)]
    else:
        kinds = step.modules
        for index, kind in enumerate(kinds):
            if not any(weight.answers_to(kind) for weight in wanted):
                raise HemostatError(
                    ErrorCode.UNKNOWN_MODULE,
                    f"no weight of the model{_of_layers(step)} is of the module kind {kind!r}",
                    hint=suggestion(kind, {name for weight in wanted for name in weight.kinds}, many=20),
                    pointer=f"{pointer}/modules/{index}",
                )
        chosen = [w for w in wanted if any(w.answers_to(kind) for kind in kinds)]
        if step.layers is not None and all(w.layer is None for w in chosen):
            raise not_applicable(
                f"the step names layers, but {', '.join(kinds)} are outside the layers",
                hint="leave layers out, or name modules of the decoder's layers",
                pointer=f"{pointer}/layers",
            )
    for weight in chosen:
        if not weight.linear:
            raise not_applicable(
                f"{weight.name} {list(weight.shape)} is no linear layer of a known layout in {info.architecture}",
                hint=f"name module kinds of a known layout: {', '.join(sorted(linear_kinds(weights)))}",
                pointer=pointer,
            )
        if weight.dtype not in FLOATS:
            raise not_applicable(
                f"{weight.name} is {weight.dtype}; a recipe changes bf16, f16 and f32 weights",
                hint="convert the checkpoint to bf16",
                pointer=pointer,
            )
    if not chosen:
        raise not_applicable(
            f"{info.architecture} has no linear layer of a known name",
            hint="name the modules",
            pointer=pointer,
        )
    return chosen


def check_step(info: CheckpointInfo, step: Step, *, pointer: str = "") -> list[Weight]:
    """`select`, and the step's own demands on the shapes.

    Raises besides `HemostatError(GROUP_SIZE_MISMATCH)` and `PATTERN_MISMATCH`, which name the tensor, its input
    dimension and the sizes that do divide.
    """
    chosen = select(info, step, pointer=pointer)
    group_size = None if isinstance(step, QuantizeKvCache) else getattr(step, "group_size", None)
    if group_size is not None:
        for weight in chosen:
            if weight.shape[-1] % group_size:
                raise HemostatError(
                    ErrorCode.GROUP_SIZE_MISMATCH,
                    f"group_size {group_size} does not divide the input dimension {weight.shape[-1]} of {weight.name}",
                    hint=f"{_told_divisors(chosen)} divide every selected weight; null: one group per row",
                    pointer=f"{pointer}/group_size",
                )
    if isinstance(step, Sparse) and step.pattern is not None:
        _, block = step.n_of_m()
        for weight in chosen:
            if weight.shape[-1] % block:
                raise HemostatError(
                    ErrorCode.PATTERN_MISMATCH,
                    f"pattern {step.pattern}: M = {block} does not divide the input dimension {weight.shape[-1]} "
                    f"of {weight.name}",
                    hint=f"{_told_divisors(chosen, least=2)} divide every selected weight",
                    pointer=f"{pointer}/pattern",
                )
    return chosen


def linear_kinds(weights: Iterable[Weight]) -> set[str]:
    """The kinds of the linear layers among them, groups left out."""
    return {kind for weight in weights if weight.linear for kind in weight.kinds & LINEAR_KINDS}


def check_layers(info: CheckpointInfo, step: Step, pointer: str) -> None:
    """Raises UNKNOWN_MODULE for a layer that the model has not."""
    for index, layer in enumerate(step.layers or ()):
        if layer >= info.layers:
            raise HemostatError(
                ErrorCode.UNKNOWN_MODULE,
                f"the model has no layer {layer}",
                hint=f"its layers are 0 to {info.layers - 1}",
                pointer=f"{pointer}/layers/{index}",
            )


def _kinds(module: str, *, tied: bool) -> tuple[int | None, frozenset[str], bool]:
    """(layer, kinds, whether it is a linear layer or embedding of a known kind) of a module's path."""
    place = in_layer(module)
    if place is None:
        last = module.rpartition(".")[2]
        if last in _EMBEDDINGS:
            return None, frozenset({"embed_tokens", "lm_head"} if tied else {"embed_tokens"}), True
        return None, frozenset({last}), last == "lm_head"
    parts = place.path.split(".")
    last = parts[-1]
    kinds = {last, _MIXTRAL.get(last, last)}
    if last in ROUTER_KINDS:
        kinds.add("router")
    else:
        if _ATTENTION & set(parts):
            kinds.add("attention")
        if _FEEDFORWARD & set(parts):
            kinds.add("mlp")
        if "experts" in parts:
            kinds.add("experts")
        if "shared_expert" in parts:
            kinds.add("shared_expert")
    return place.layer, frozenset(kinds), last in LINEAR_KINDS | ROUTER_KINDS


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts tensor names in the model's order: layer 10 after layer 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split(".")]


def _of_layers(step: Step) -> str:
    if step.layers is None:
        return ""
    return f" in layer{'' if len(step.layers) == 1 else 's'} {', '.join(map(str, step.layers[:8]))}"


def _told_divisors(weights: list[Weight], *, least: int = 8) -> str:
    common = 0
    for weight in weights:
        common = gcd(common, weight.shape[-1])
    sizes = [size for size in range(1, common + 1) if common % size == 0 and size >= min(least, common)]
    return ", ".join(map(str, sizes[:24]))
