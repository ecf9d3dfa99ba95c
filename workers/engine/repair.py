"""A low-rank repair beside a checkpoint's weights, in vLLM's linear layers.

A PEFT LoRA (Hu et al., arXiv 2106.09685) names the layers: y = W x + b + s · B (A x). The product is added to what the
layer's own kernel makes, packed or not. Layers that vLLM runs as one have the factors of their parts as one pair: the A
below each other, the B on a diagonal.

All rows get the same repair. So vLLM's LoRA is not needed, which looks up an adapter for each row. On a CPU it takes
more than half of the throughput.

Names: T rows, I inputs, O outputs, R ranks of all parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch.nn.functional import linear

from app.contracts.blocks import ADAPTER, REPAIR, repair_in
from app.contracts.errors import ErrorCode, HemostatError
from app.models.adapters import WEIGHTS, AdapterInfo, inspect_adapter
from workers.engine import vllm_names as vllm
from workers.engine.serving.corrections import on_one_thread
from workers.products import lacking
from workers.surgery.channels import Channels
from workers.surgery.files import link_checkpoint

# A (R, I) and s · B (O, R) of a part.
Factors = tuple[torch.Tensor, torch.Tensor]

# Up to so many rows one thread is faster than two of which one has to be woken.
_FEW_ROWS: Final = 8


def attach(base: Path, adapter: Path, folder: Path) -> None:
    """Makes `folder` the checkpoint `base` with a repair beside its weights, by links to both. What is there is
    removed. Raises CHECKPOINT_UNSUPPORTED if the adapter's channels are scaled in another way than the base's, and what
    `inspect_adapter` raises."""
    frame, own = Channels.load(adapter), Channels.load(base)
    other = [name for name in inspect_adapter(adapter).targets if not own.alike(name, frame)]
    if other:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"the packed weights scale the channels of {other[0]} in another way than those that the repair was made "
            "for",
            hint="deploy the recipe without `repair`: the merged checkpoint is served",
        )
    link_checkpoint(base, folder)
    (folder / ADAPTER).symlink_to(adapter.resolve())
    config = json.loads((base / "config.json").read_bytes())
    config[REPAIR] = {"sha256": _sha256(adapter / WEIGHTS)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def install(model: torch.nn.Module, checkpoint: Path) -> None:
    """Has the linear layers of a vLLM model add the checkpoint's repair; without a section nothing is done.

    Raises CHECKPOINT_UNSUPPORTED if the adapter names a module that is no linear layer of the model, and for a model
    that is split. Raises CHECKPOINT_CORRUPT if the adapter is not the section's, and what `inspect_adapter` raises.
    """
    section = repair_in(json.loads((checkpoint / "config.json").read_bytes()))
    if section is None:
        return
    adapter = inspect_adapter(checkpoint / ADAPTER)
    if _sha256(adapter.path / WEIGHTS) != section.sha256:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"{ADAPTER}/{WEIGHTS} is not the file that config.json names",
            hint="start the replica again",
        )
    left = _factors(adapter)
    parts_of: dict[str, list[str]] = dict(getattr(model, "packed_modules_mapping", None) or {})
    for path, layer in list(model.named_modules()):
        if not isinstance(layer, vllm.LinearBase):
            continue
        parent, _, last = path.rpartition(".")
        names = parts_of.get(last, [last])
        parts = [left.pop(f"{parent}.{name}.weight", None) for name in names]
        if any(part is not None for part in parts):
            _add_to(layer, parts)
    if left:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"the repair names {min(left)} and {len(left) - 1} more that are no linear layers of the engine's model",
            hint="deploy the recipe without `repair`: the merged checkpoint is served",
        )


def stacked(parts: Sequence[Factors | None], outputs: Sequence[int]) -> Factors:
    """The factors of layers that run as one, with `outputs` rows each: A (R, I) and B (O, R), 0 off the diagonal."""
    given = [part for part in parts if part is not None]
    down_RI = torch.cat([down for down, _ in given])
    up_OR = down_RI.new_zeros(sum(outputs), len(down_RI))
    row = column = 0
    for part, rows in zip(parts, outputs, strict=True):
        if part is not None:
            rank = len(part[0])
            up_OR[row : row + rows, column : column + rank] = part[1]
            column += rank
        row += rows
    return down_RI, up_OR


def _factors(adapter: AdapterInfo) -> dict[str, Factors]:
    with safe_open(adapter.path / WEIGHTS, framework="pt") as held:
        return {
            name: (held.get_tensor(one.a).float(), one.scale * held.get_tensor(one.b).float())
            for name, one in adapter.targets.items()
        }


def _add_to(layer: Any, parts: Sequence[Factors | None]) -> None:
    if layer.tp_size > 1:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            "a repair is served on one device, but the model is split over several",
            hint="deploy the recipe without `repair`: the merged checkpoint is served",
        )
    down_RI, up_OR = stacked(parts, layer.output_sizes if len(parts) > 1 else [layer.output_size])
    device, dtype = next(layer.parameters()).device, layer.params_dtype
    if device.type == "cpu" and vllm.custom_ops._supports_onednn:
        layer.register_forward_hook(_packed(down_RI, up_OR, torch.float32 if lacking(dtype) else dtype))
        return
    # Buffers, so that a compiled model finds them as it finds its weights.
    layer.register_buffer("hemostat_down", down_RI.to(device, dtype), persistent=False)
    layer.register_buffer("hemostat_up", up_OR.T.contiguous().to(device, dtype), persistent=False)
    layer.register_forward_hook(_after)


def _after(layer: Any, given: Any, output: Any) -> None:
    _made(output).addmm_(linear(given[0], layer.hemostat_down), layer.hemostat_up)


def _packed(down_RI: torch.Tensor, up_OR: torch.Tensor, dtype: torch.dtype) -> Callable[[Any, Any, Any], None]:
    """The same by oneDNN with weights that are packed once: of few rows a product takes half the time."""
    down, up = (vllm.custom_ops.create_onednn_mm(weight.to(dtype).t(), 32) for weight in (down_RI, up_OR))

    def after(_: Any, given: Any, output: Any) -> None:
        torch.ops.hemostat.add_product(
            _made(output), given[0].to(dtype), down.handler_tensor, up.handler_tensor, len(down_RI)
        )

    return after


def _made(output: Any) -> torch.Tensor:
    """What a layer has made, (T, O), without the bias that it may return beside it."""
    made_TO: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return made_TO


def _add_product(made_TO: torch.Tensor, x_TI: torch.Tensor, down: torch.Tensor, up: torch.Tensor, rank: int) -> None:
    """Adds what the packed weights make of x, in the dtype of x. `down` and `up` hold where oneDNN has them."""
    with on_one_thread(made_TO.device, len(made_TO), _FEW_ROWS):
        inner_TR, product_TO = x_TI.new_empty(len(x_TI), rank), x_TI.new_empty(made_TO.shape)
        torch.ops._C.onednn_mm(inner_TR, x_TI, None, down)
        torch.ops._C.onednn_mm(product_TO, inner_TR, None, up)
        made_TO.add_(product_TO)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _made_before(*_: object) -> None:
    """Nothing is made: what there is is changed."""


_LIBRARY: Final[Any] = torch.library.Library("hemostat", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("add_product(Tensor(a!) made_TO, Tensor x_TI, Tensor down, Tensor up, int rank) -> ()")
_LIBRARY.impl("add_product", _add_product, "CompositeExplicitAutograd")
torch.library.register_fake("hemostat::add_product", _made_before, lib=_LIBRARY)
