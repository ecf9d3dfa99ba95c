"""How many bytes an engine holds of a checkpoint, and how much of it runs in one step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Final, Protocol

from app.contracts.blocks import ADAPTER, RANK, repair_in
from app.models.adapters import WEIGHTS
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.modules import select
from app.models.safetensors_header import TensorInfo
from app.models.training import unit
from app.recipes.base import Calibrated, Step
from app.settings import Settings
from workers.engine.shape import kv_bytes_per_token
from workers.engine.split import Split
from workers.surgery.reading import CHUNK

ITEM_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
# vLLM gives memory for keys and values out in blocks of so many tokens.
BLOCK: Final = 128
# So many versions may correct blocks in one batch: the active, the previous and the tried one.
SLOTS: Final = 3
# Working memory of a step and of the libraries, beside weights, keys and values.
OVERHEAD_BYTES: Final = 256 * 1024**2
# What a process holds that has imported vLLM and torch (measured: 0.9 GB), if it is not this one.
PROCESS_BYTES: Final = 900 * 1024**2
# A second moment, and what lies beside it while it is factorized.
_SQUARES: Final = 5
# Per weight that is rounded: its codes, and what they mean, in float32. In a search the weight and the scaled one, too.
_ROUNDED: Final = 12
_SEARCHED: Final = 20
# Per number of a second moment: the sum, it mirrored, and the mean.
_MOMENTS: Final = 12
# Of a number that a block keeps for the way back: some are bf16, some float32, some both (measured: 11).
_ACTIVATION_BYTES: Final = 10
# A step on a CPU is to take a second or two, so that a cancelled job stops: so many tokens times weights, about.
_CPU_STEP_WORK: Final = 5e11
# Products by way of float32, on half the lanes, take two to five times as long.
_CPU_SLOW_STEP_WORK: Final = 1e11
_CPU_LEAST_STEP: Final = 128


def weight_bytes(info: CheckpointInfo, dtype: str, device: str, *, head: bool) -> int:
    """Bytes of the weights as an engine of `dtype` on `device` holds them: packed ones as they are packed. Linear
    layers count as float32 if the processor has no products of `dtype` (`workers.products`). So does the output matrix,
    beside itself, in an engine that makes logits (`head`)."""
    if info.quantization:
        return int(info.bytes)
    item = ITEM_BYTES[dtype]
    if not _by_float32(dtype, device):
        return item * sum(tensor.elements for tensor in info.tensors.values())
    held = sum(tensor.elements * (4 if _linear(name, tensor) else item) for name, tensor in info.tensors.items())
    ends = [tensor.elements for name, tensor in info.tensors.items() if _at_an_end(name)]
    return held + (4 * max(ends, default=0) if head else 0)


def gpu_working_bytes(info: CheckpointInfo, sequences: int) -> int:
    """Bytes that a server takes of a GPU beside weights, keys and values: CUDA's context, its graphs and a step's
    activations, and three float32 copies of the logits of all sequences. Reckoned, not measured."""
    return 1024**3 + 3 * ITEM_BYTES["float32"] * sequences * info.vocabulary


def slot_bytes(info: CheckpointInfo) -> int:
    """Bytes of a replica's slots for corrections after each block (`workers.engine.blocks`), in float32."""
    return SLOTS * ITEM_BYTES["float32"] * info.layers * info.hidden_size * (2 * RANK + 1)


def repair_bytes(info: CheckpointInfo) -> int:
    """About the bytes of a repair beside the weights (`workers.engine.repair`), 0 without one. The factors of layers
    that run as one have zeros beside them."""
    return 2 * (info.path / ADAPTER / WEIGHTS).stat().st_size if repair_in(info.config) else 0


def single_row_bytes(info: CheckpointInfo, dtype: str, device: str) -> int:
    """Bytes that are held besides where rows that come alone have weights of `dtype` of their own
    (`workers.engine.mending.multiply_in_float32`); 0 if they gain nothing by it."""
    if info.quantization or not _made_up(dtype, device):
        return 0
    ends = [tensor.elements for name, tensor in info.tensors.items() if _at_an_end(name)]
    linear = sum(tensor.elements for name, tensor in info.tensors.items() if _linear(name, tensor))
    return ITEM_BYTES[dtype] * (linear + max(ends, default=0))


def _linear(name: str, tensor: TensorInfo) -> bool:
    """Whether a tensor is multiplied by one of vLLM's linear layers. Experts go through kernels of their own."""
    return len(tensor.shape) == 2 and not _at_an_end(name) and ".experts." not in name


def _at_an_end(name: str) -> bool:
    """Whether a tensor is the embedding or the output matrix; tied or not, they are of one size."""
    return "embed" in name or name == "lm_head.weight"


def kv_cache_bytes(info: CheckpointInfo, settings: Settings, dtype: str, tokens: int) -> int:
    """Bytes for keys and values in each process that holds a part of the model: what the settings say, or what `tokens`
    at once need where that is more."""
    padded = (-(-tokens // BLOCK) + 8) * BLOCK
    token = kv_bytes_per_token(info.config, ITEM_BYTES[dtype], Split.of(settings))
    return max(settings.engine_kv_cache_bytes, padded * token)


def engine_bytes(weights: int, kv_cache: int, split: Split, device: str) -> int:
    """Bytes of an engine's `weights`, keys and values (`kv_cache` of each process), and working memory. On a CPU all
    processes count, on a GPU the one that has it."""
    if device == "cpu":
        return weights + split.ranks * (kv_cache + OVERHEAD_BYTES) + (split.ranks > 1) * split.ranks * PROCESS_BYTES
    return weights // split.ranks + kv_cache + OVERHEAD_BYTES


class Matrix(Protocol):
    """A model or its head: the size of the matrix that makes logits."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens, V."""

    @property
    def hidden_size(self) -> int:
        """Width of the hidden state, D."""


def divergence_bytes(
    reference: Matrix, device: str, *, candidate: Matrix | None = None, precision: str = "fast"
) -> int:
    """Bytes of a GPU that a divergence takes: the head, and a tile of logits of both models. If the `candidate` has
    another head, both, and what the difference is computed with. 0 on a CPU."""
    if device == "cpu":
        return 0
    positions = 512 if reference.vocabulary <= 2**17 else 256  # as `workers.distributions.divergence`
    widths = reference.hidden_size if candidate is None else 2 * (reference.hidden_size + candidate.hidden_size)
    return (4 if precision == "float32" else 2) * reference.vocabulary * (widths + 2 * positions)


def scorer_bytes(reference: Matrix, candidate: Matrix, device: str, dtype: str, *, same: bool) -> int:
    """Bytes of a GPU that the scores of served requests take (`workers.calibration.online.scoring`): a divergence of
    both models, one of the candidate against itself, and the heads in `dtype`. `same`: both have one matrix."""
    if device == "cpu":
        return 0
    both = divergence_bytes(reference, device, candidate=None if same else candidate)
    matrices = (reference,) if same else (reference, candidate)
    heads = ITEM_BYTES[dtype] * sum(one.vocabulary * one.hidden_size for one in matrices)
    return both + divergence_bytes(candidate, device) + heads


def step_bytes(source: CheckpointInfo, reference: CheckpointInfo, steps: Sequence[Step], device: str) -> int:
    """Bytes of a GPU that steps of a recipe take which change `source` and may look at `reference`. As with an engine,
    a little less than they really take. 0 on a CPU."""
    return 0 if device == "cpu" else max((_held(step, source, reference) for step in steps), default=0)


def _held(step: Step, source: CheckpointInfo, reference: CheckpointInfo) -> int:
    """Of one step: all weights, or a block beside the embedding, or one tensor."""
    item = 4 if source.scheme == "f32" else 2
    matrix = item * source.vocabulary * source.hidden_size
    sizes = {name: tensor.elements for name, tensor in source.tensors.items()}
    if step.holds_model:
        trained = step.trained_bytes * sum(weight.shape[0] * weight.shape[1] for weight in select(source, step))
        return training_bytes(source, reference, item, step.kept_tokens) + trained
    # Whether a tensor is finite is looked up piece by piece, in absolute values and three masks.
    largest = max(sizes.values())
    one = largest * item + min(largest, CHUNK) * (item + 3)
    if not (isinstance(step, Calibrated) and step.reads_text):
        return one
    widest = max(weight.shape[-1] for weight in select(source, step)) if step.squares else 0
    squares = _SQUARES * ITEM_BYTES["float32"] * widest**2
    block = largest_block(source)
    folded = _folded(step, source, block) if step.folds else 0
    return max(one, matrix + item * block + squares + folded)


def training_bytes(source: CheckpointInfo, reference: CheckpointInfo, item: int, tokens: int) -> int:
    """Bytes of the larger of two models, the heads of both, and what is kept of so many tokens for the way back; `item`
    bytes a number."""
    numbers = 8 * source.hidden_size + 4 * int(source.config.get("intermediate_size") or 0)
    activations = _ACTIVATION_BYTES * numbers * source.layers * tokens
    heads = 2 * item * source.vocabulary * source.hidden_size
    return item * max(source.parameters, reference.parameters) + heads + activations


def _folded(step: Step, source: CheckpointInfo, block: int) -> int:
    """Bytes of a step that scales channels, beside a block of `block` weights. It holds the block in float32. Beside
    it is what rounds a weight, or what searches for the scales of the layers of one input."""
    weights = select(source, step)
    if not step.products:
        return 4 * block + _ROUNDED * max(prod(weight.shape) for weight in weights)
    together: Counter[tuple[int | None, tuple[str, ...], int]] = Counter()
    for weight in weights:
        together[weight.layer, unit(weight), weight.shape[-1]] += prod(weight.shape)
    return 4 * block + max(_SEARCHED * size + _MOMENTS * width**2 for (_, _, width), size in together.items())


def largest_block(info: CheckpointInfo) -> int:
    """Numbers of the largest decoder layer."""
    blocks: Counter[int] = Counter()
    for name, tensor in info.tensors.items():
        if (within := in_layer(name)) is not None:
            blocks[within.layer] += tensor.elements
    return max(blocks.values(), default=0)


def step_tokens(info: CheckpointInfo, batch_tokens: int, device: str) -> int:
    """Most tokens of one step, the same for the same checkpoint: a batch's shape must not depend on the clock.
    `batch_tokens` is what the settings allow (`engine_batch_tokens`), `device` is `cpu` or `cuda`."""
    if device != "cpu":
        return batch_tokens
    work = _CPU_SLOW_STEP_WORK if _by_float32("bfloat16", device) else _CPU_STEP_WORK
    return min(batch_tokens, max(_CPU_LEAST_STEP, int(work // max(1, info.parameters))))


def _by_float32(dtype: str, device: str) -> bool:
    if device != "cpu" or dtype == "float32":
        return False
    import torch

    from workers.products import lacking

    return lacking(getattr(torch, dtype))


def _made_up(dtype: str, device: str) -> bool:
    if device != "cpu":
        return False
    import torch

    from workers.products import made_up

    return made_up(getattr(torch, dtype))
