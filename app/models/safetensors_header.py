"""The header of a safetensors file, read and checked without loading a tensor.

Format: 8 bytes little-endian length n, n bytes of JSON, then the tensors' bytes, to which `data_offsets` are relative.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.json_file import MALFORMED

# safetensors itself takes 100 MB. 210,000 tensors in one file, more than any known one has, take 25 MB.
MOST_HEADER_BYTES = 32 * 1024**2
BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its dtype as safetensors writes it (BF16, I8, …), its shape, the file that holds it."""

    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """What its data take in the file."""
        return self.elements * BITS[self.dtype] // 8


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Tensors of one file, by name, in the order of their data.

    Raises `HemostatError(CHECKPOINT_CORRUPT)` for a file that is truncated or longer than its header says, and for a
    header that is not valid. That is bad JSON, a name twice, an unknown dtype, bytes that do not fit the shape, gaps or
    overlaps.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if size >= 8 and length > MOST_HEADER_BYTES:
                raise _corrupt(path, f"its header has {length:,} bytes; at most {MOST_HEADER_BYTES:,} are read")
            if size < 8 or length > size - 8:
                raise _corrupt(path, f"it ends inside its header ({size} bytes)")
            raw = stream.read(length)
    except OSError as error:
        raise _corrupt(path, f"it cannot be read: {error.strerror}") from error
    try:
        entries = json.loads(raw, object_pairs_hook=_no_duplicates)
        if not isinstance(entries, dict):
            raise TypeError("it is not an object")
        entries.pop("__metadata__", None)
        spans = sorted(_span(path, name, entry) for name, entry in entries.items())
    except MALFORMED as error:
        raise _corrupt(path, f"its header is not valid: {error}") from error
    end = 0
    for begin, stop, name, _ in spans:
        if begin != end:
            raise _corrupt(path, f"the data of tensor {name} begin at byte {begin}, expected {end}")
        end = stop
    found = size - 8 - length
    if found < end:
        raise _corrupt(path, f"it is truncated: its tensors take {end} bytes, {found} are there")
    if found > end:
        raise _corrupt(path, f"it has {found - end} bytes after its last tensor")
    return {name: info for _, _, name, info in spans}


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, str, TensorInfo]:
    """(begin, end, name, info) of one entry; raises ValueError, TypeError or KeyError for anything odd."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in BITS:
        raise ValueError(f"tensor {name} has the unknown dtype {dtype!r}")
    for number in (*shape, begin, end):
        if type(number) is not int or number < 0:
            raise ValueError(f"tensor {name} has the size or offset {number!r}")
    info = TensorInfo(dtype, tuple(shape), path.name)
    if (end - begin) * 8 != info.elements * BITS[dtype]:
        raise ValueError(f"tensor {name} of shape {shape} and dtype {dtype} has {end - begin} bytes")
    return begin, end, name, info


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"{twice!r} occurs twice")
    return result


def _corrupt(path: Path, what: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_CORRUPT, f"{path.name}: {what}", hint="fetch or write the file again; it is damaged"
    )
