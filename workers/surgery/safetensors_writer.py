"""Writes safetensors shards one tensor at a time, so that memory holds one tensor whatever the model's size.

The library's own `save_file` wants a whole shard in memory. Bytes depend on names, shapes and contents alone: no times,
no order of hashing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO

import torch

DTYPES: dict[str, torch.dtype] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class Planned:
    """A tensor that will be written: its dtype as safetensors writes it, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What its data will take."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


def plan_shards(tensors: Iterable[Planned], *, shard_bytes: int = SHARD_BYTES) -> list[list[Planned]]:
    """Shards of at most `shard_bytes` of data, in the order given; a larger tensor has one of its own.

    Wide dtypes come first within a shard, so that all data are aligned.
    """
    shards: list[list[Planned]] = []
    size = 0
    for tensor in tensors:
        if not shards or size + tensor.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes
    return [sorted(shard, key=lambda tensor: -DTYPES[tensor.dtype].itemsize) for shard in shards]


def write_shards(folder: Path, shards: list[list[Planned]], tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Writes model.safetensors, or several shards and their index. `tensors` yields every planned tensor, in order.

    Raises ValueError if it yields another one, and OSError where the disk refuses.
    """
    placed: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        with ShardWriter(folder / name, shard) as writer:
            for planned in shard:
                found, tensor = next(tensors)
                writer.write(found, tensor)
                placed[planned.name] = name
    surplus = next(tensors, None)
    if surplus is not None:
        raise ValueError(f"{surplus[0]} was not planned")
    if len(shards) > 1:
        total = sum(planned.bytes for shard in shards for planned in shard)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


class ShardWriter:
    """One file. `write` takes its tensors in the planned order."""

    def __init__(self, path: Path, planned: list[Planned]) -> None:
        self._stream: IO[bytes] = path.open("wb")
        self._left = list(reversed(planned))
        self._stream.write(_header(planned))

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Appends the next tensor; raises ValueError for any but the planned one."""
        planned = self._left.pop()
        if (planned.name, DTYPES[planned.dtype], planned.shape) != (name, tensor.dtype, tuple(tensor.shape)):
            raise ValueError(f"expected {planned}, got {name} {tensor.dtype} {tuple(tensor.shape)}")
        if tensor.numel():
            self._stream.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().data)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()
        except OSError:
            if error is None:
                raise
        if error is None and self._left:
            raise ValueError(f"{len(self._left)} planned tensors were not written, such as {self._left[-1].name}")


def _header(planned: list[Planned]) -> bytes:
    entries: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in planned:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.bytes],
        }
        offset += tensor.bytes
    body = json.dumps(entries, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    return len(body).to_bytes(8, "little") + body
