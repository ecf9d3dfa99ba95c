"""A PEFT LoRA adapter's folder, looked into without loading a weight.

Only what can be merged into weights exactly is taken: LoRA on linear layers, without DoRA's magnitudes, trained biases
or whole modules. safetensors only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError, not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.json_file import MALFORMED, read_json
from app.models.patterns import matches
from app.models.safetensors_header import TensorInfo, read_header

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_AGAIN = "fetch the adapter's folder again, or let PEFT's save_pretrained write it again"
_PREFIX = "base_model.model."
# PEFT's own where adapter_config.json has none.
_ALPHA = 8
# PEFT's ways to begin an adapter that change the weights beneath it.
_REPLACE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Target:
    """One weight that is changed: W + scale · B A, A (r, I) and B (O, r) being tensors of the adapter's file."""

    weight: str
    a: str
    b: str
    rank: int
    scale: float


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is; `targets` by the name of the weight that each changes."""

    path: Path
    targets: dict[str, Target]
    tensors: dict[str, TensorInfo]


def inspect_adapter(path: Path, *, pointer: str = "") -> AdapterInfo:
    """Looks into the folder. Raises `HemostatError` with `pointer`: CHECKPOINT_NOT_FOUND, CHECKPOINT_INCOMPLETE,
    CHECKPOINT_CORRUPT, CHECKPOINT_UNSAFE (pickled weights), CHECKPOINT_UNSUPPORTED (not a plain LoRA)."""
    if not path.is_dir():
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FOUND,
            f"there is no adapter folder {path.name}",
            hint="give the folder that PEFT's save_pretrained wrote, below HEMOSTAT_ADAPTER_ROOT",
            pointer=pointer,
        )
    with _damage_named(path, pointer):
        config = read_json(path / CONFIG)
    _refuse_other_kinds(config, pointer)
    if not (path / WEIGHTS).is_file():
        pickled = (path / "adapter_model.bin").is_file()
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSAFE if pickled else ErrorCode.CHECKPOINT_INCOMPLETE,
            f"the adapter {path.name} has no {WEIGHTS}" + (", only a pickle, which runs code when loaded" * pickled),
            hint="save it with safe_serialization=True",
            pointer=pointer,
        )
    with _damage_named(path, pointer):
        tensors = read_header(path / WEIGHTS)
    targets: dict[str, Target] = {}
    for name, tensor in tensors.items():
        if name.endswith(".lora_A.weight"):
            target = _target(name, tensor, tensors, config, pointer)
            targets[target.weight] = target
        elif not name.endswith(".lora_B.weight"):
            raise _unsupported(f"it holds the tensor {name}, which is no LoRA factor of a linear layer", pointer)
    if not targets:
        raise _unsupported("it holds no LoRA factor", pointer)
    return AdapterInfo(path, targets, tensors)


def check_adapter(adapter: AdapterInfo, info: CheckpointInfo, *, pointer: str = "") -> None:
    """Raises `HemostatError(RECIPE_NOT_APPLICABLE)` for a weight that the model has not, or has in another shape, and
    for the output matrix of a model that ties it to its embedding."""
    for target in adapter.targets.values():
        weight = info.tensors.get(target.weight)
        if info.tied and target.weight == "lm_head.weight":
            raise not_applicable(
                "the adapter changes the output matrix, which this model ties to its embedding",
                hint="merge it into a model with a separate output matrix, or train the adapter without lm_head",
                pointer=pointer,
            )
        if weight is None:
            raise not_applicable(
                f"the adapter changes {target.weight}, which {info.architecture} with {info.layers} layers does not "
                "have",
                hint="merge it into the model that it was trained for",
                pointer=pointer,
            )
        shape = (adapter.tensors[target.b].shape[0], adapter.tensors[target.a].shape[1])
        if weight.shape != shape:
            raise not_applicable(
                f"the adapter's factors have the shape {list(shape)}, but {target.weight} has {list(weight.shape)}",
                hint="merge it into the model that it was trained for",
                pointer=pointer,
            )


@contextmanager
def _damage_named(path: Path, pointer: str) -> Iterator[None]:
    try:
        yield
    except HemostatError as error:
        detail = f"the adapter {path.name} is damaged: {error.detail}"
        raise HemostatError(error.code, detail, hint=_AGAIN, pointer=pointer) from error


def _refuse_other_kinds(config: dict[str, Any], pointer: str) -> None:
    if config.get("peft_type") != "LORA":
        raise _unsupported(f"its peft_type is {config.get('peft_type')!r}", pointer)
    for field, plain in (
        ("use_dora", (None, False)),
        ("bias", (None, "none")),
        ("lora_bias", (None, False)),
        ("modules_to_save", (None, [])),
        ("fan_in_fan_out", (None, False)),
        ("trainable_token_indices", (None, [])),
        ("alora_invocation_tokens", (None, [])),  # acts from some token of the prompt on
        ("use_qalora", (None, False)),
        ("use_bdlora", (None, False)),
        ("target_parameters", (None, [])),
        ("layer_replication", (None, [])),
        ("arrow_config", (None,)),
        ("kasa_config", (None,)),
        ("monteclora_config", (None,)),
    ):
        if config.get(field) not in plain:
            raise _unsupported(f"it has {field} {config[field]!r}", pointer)
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.startswith(_REPLACE):
        raise _unsupported(
            f"it was begun with {begun}, which takes the factors out of the model's own weights: it belongs to what is "
            "left of them",
            pointer,
        )


def _target(
    name: str, tensor: TensorInfo, tensors: dict[str, TensorInfo], config: dict[str, Any], pointer: str
) -> Target:
    module = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
    other = name.removesuffix("lora_A.weight") + "lora_B.weight"
    if other not in tensors or len(tensor.shape) != 2 or len(tensors[other].shape) != 2:
        raise _unsupported(f"{name} has no partner {other}, or one of them is no matrix", pointer)
    rank = tensor.shape[0]
    if tensors[other].shape[1] != rank:
        raise _unsupported(f"{name} has rank {rank} and {other} has {tensors[other].shape[1]}", pointer)
    try:
        alpha = float(_of_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", _ALPHA)))
        scale = alpha / (sqrt(rank) if config.get("use_rslora") else rank)
    except MALFORMED as error:
        raise _unsupported(f"its alpha of {module} cannot be read: {error}", pointer) from error
    return Target(f"{module}.weight", name, other, rank, scale)


def _of_pattern(pattern: Any, module: str, default: Any) -> Any:
    """A module's own value: keys are regular expressions of the end of its path, as PEFT reads them."""
    for key, value in (pattern or {}).items():
        if matches(rf"(.*\.)?({key})$", module):
            return value
    return default


def _unsupported(why: str, pointer: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        f"the adapter cannot be merged: {why}",
        hint=(
            "only plain LoRA adapters of linear layers can be merged; merge others with PEFT's merge_and_unload, and "
            "give the result"
        ),
        pointer=pointer,
    )
