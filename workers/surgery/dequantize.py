"""A packed compressed-tensors checkpoint becomes plain bf16 with the same weights, but for rounding code times scale
to bf16.

Run on the reference's kernels, it shows what the packed checkpoint's own kernels add (the kernel term): rounding of
other kernels, and activation quantization where the scheme has it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import QUANTIZATION_PARTS, CheckpointInfo, fingerprint
from app.models.modules import natural_key
from app.models.packing import UNPACKED, Targets
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.surgery.files import copy_companions
from workers.surgery.reading import TensorReader, open_tensors
from workers.surgery.safetensors_writer import SHARD_BYTES, Planned, plan_shards, write_shards
from workers.surgery.store import CheckpointStore, StoredCheckpoint

DEQUANTIZE_VERSION = 1


def dequantize(
    source: CheckpointInfo,
    *,
    device: str | torch.device,
    store: CheckpointStore,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
    shard_bytes: int = SHARD_BYTES,
) -> StoredCheckpoint:
    """The plain checkpoint, pinned, from the store where it is there.

    Raises `HemostatError`: RECIPE_NOT_APPLICABLE for a checkpoint that is not packed, CHECKPOINT_UNSUPPORTED for a
    packing beyond int and fp8 weights, CHECKPOINT_NOT_FINITE, CHECKPOINT_INCOMPLETE, DISK_FULL.
    """
    if source.quantization is None:
        raise HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, "the checkpoint is not quantized", hint="use it as it is")
    unpacker = _Unpacker(source)
    source_fingerprint = fingerprint(source.path, check_cancelled=check_cancelled)
    named = {"dequantize": DEQUANTIZE_VERSION, "source": source_fingerprint}
    key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def build(folder: Path) -> None:
        with open_tensors(source, device) as reader:
            shards = plan_shards(unpacker.plan(reader), shard_bytes=shard_bytes)
            order = [planned.name for shard in shards for planned in shard]
            write_shards(folder, shards, _unpacked(unpacker, reader, order, progress, check_cancelled))
        copy_companions(source.path, folder)
        (folder / "config.json").write_text(json.dumps(_plain(source).config, indent=2) + "\n")
        fingerprint(folder, check_cancelled=check_cancelled)  # looks into it: complete and of the right shapes

    expected = 2 * source.parameters
    return store.get_or_build(key, build, expected_bytes=expected, check_cancelled=check_cancelled)


@contextmanager
def open_plain(
    source: CheckpointInfo, device: str | torch.device
) -> Iterator[tuple[CheckpointInfo, Callable[[str], torch.Tensor]]]:
    """The checkpoint as if it were plain, and what reads a tensor of it by name, unpacked if it is packed. Nothing is
    written. Raises `HemostatError(CHECKPOINT_UNSUPPORTED)` for a packing beyond int and fp8 weights."""
    with open_tensors(source, device) as reader:
        if source.quantization is None:
            yield source, reader.read
        else:
            unpacker = _Unpacker(source)
            yield _plain(source), lambda name: unpacker.unpack(reader, name)


_DROPPED = frozenset({"quantization_config", "compression_config", "torch_dtype", "dtype"})


def _plain(source: CheckpointInfo) -> CheckpointInfo:
    """What it is once it is unpacked, but for the names of its tensors."""
    config = {name: value for name, value in source.config.items() if name not in _DROPPED} | {"dtype": "bfloat16"}
    return replace(source, config=config, quantization=None, scheme="bf16")


def _unpacked(
    unpacker: "_Unpacker",
    reader: TensorReader,
    order: list[str],
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> Iterator[tuple[str, torch.Tensor]]:
    for done, name in enumerate(order):
        check_cancelled()
        progress("dequantize", done, len(order))
        yield name, unpacker.unpack(reader, name)
    progress("dequantize", len(order), len(order))


class _Unpacker:
    """Knows which module is packed how."""

    def __init__(self, source: CheckpointInfo) -> None:
        self._source = source
        try:
            # pydantic warns of fields that other versions of the library wrote; none decides how to unpack
            self._config = QuantizationConfig.model_validate(_known_fields(source.quantization or {}))
        except ValueError as error:
            raise _unsupported(f"its quantization_config cannot be read ({type(error).__name__})") from error
        self._schemes = [(Targets(scheme.targets), scheme) for scheme in self._config.config_groups.values()]
        self._packed = {
            name.rpartition(".")[0] for name in source.tensors if name.endswith((".weight_packed", ".weight_scale"))
        }
        for module in self._packed:
            self._scheme(module)

    def plan(self, reader: TensorReader) -> list[Planned]:
        """Every tensor of the plain checkpoint."""
        planned = []
        for name, tensor in self._source.tensors.items():
            module, _, part = name.rpartition(".")
            if module not in self._packed:
                if part not in QUANTIZATION_PARTS:
                    planned.append(Planned(name, tensor.dtype, tensor.shape))
            elif part == "weight":
                planned.append(Planned(name, "BF16", tensor.shape))
            elif part == "weight_packed":
                shape = reader.read(f"{module}.weight_shape").tolist()
                planned.append(Planned(f"{module}.weight", "BF16", tuple(int(size) for size in shape)))
            elif part not in QUANTIZATION_PARTS:  # a bias
                planned.append(Planned(name, tensor.dtype, tensor.shape))
        return sorted(planned, key=lambda tensor: natural_key(tensor.name))

    def unpack(self, reader: TensorReader, name: str) -> torch.Tensor:
        """One tensor of the plain checkpoint."""
        module, _, part = name.rpartition(".")
        if module not in self._packed or part != "weight":
            return reader.read(name)
        scheme, packing = self._scheme(module)
        compressor: Any = BaseCompressor.get_value_from_registry(packing)
        try:
            parts = {part: reader.read(f"{module}.{part}") for part in compressor.compression_param_names(scheme)}
        except KeyError as error:
            raise HemostatError(
                ErrorCode.CHECKPOINT_INCOMPLETE,
                f"tensor {error.args[0]} is missing, so {module} cannot be unpacked",
                hint="fetch the weights again",
            ) from None
        weight: torch.Tensor = compressor.decompress(parts, scheme)["weight"]
        return weight.to(torch.bfloat16)

    def _scheme(self, module: str) -> tuple[QuantizationScheme, str]:
        """The group that the module belongs to, and its format."""
        for targets, scheme in self._schemes:
            if targets.name(module):
                packing = str(getattr(scheme.format or self._config.format, "value", self._config.format))
                if packing not in UNPACKED:
                    raise _unsupported(f"the format {packing} of {module}")
                return scheme, packing
        raise _unsupported(f"{module} is packed, but belongs to no group of quantization_config")


def _known_fields(quantization: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in quantization.items() if name in QuantizationConfig.model_fields}


def _unsupported(what: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        f"the checkpoint cannot be dequantized: {what}",
        hint="use a compressed-tensors checkpoint of int or fp8 weights",
    )
