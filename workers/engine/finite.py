"""Whether every weight of a checkpoint is a finite number, so that a NaN is distinguished from a broken engine."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from workers.engine.errors import translate

if TYPE_CHECKING:
    import torch

_FLOATS = frozenset({"BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2"})
# Of a tensor, looked at together: the look takes at most three times as much memory.
_CHUNK_BYTES = 1 << 22


def check_finite(info: CheckpointInfo, check_cancelled: Callable[[], None] = lambda: None) -> None:
    """Raises CHECKPOINT_NOT_FINITE, with the first tensor's name, where a weight is NaN or infinite.

    Reads every floating-point tensor: a second for some gigabytes. ENGINE_OUT_OF_MEMORY if a file cannot be mapped.
    """
    try:
        _check(info, check_cancelled)
    except MemoryError as error:
        raise translate(error, f"while reading {info.path.name}") from error


def _check(info: CheckpointInfo, check_cancelled: Callable[[], None]) -> None:
    from safetensors import safe_open

    by_file: dict[str, list[str]] = {}
    for name, tensor in info.tensors.items():
        if tensor.dtype in _FLOATS:
            by_file.setdefault(tensor.file, []).append(name)
    for file, names in sorted(by_file.items()):
        with safe_open(info.path / file, framework="pt") as opened:
            for name in sorted(names):
                check_cancelled()
                flat = opened.get_tensor(name).reshape(-1)
                bad = sum(map(_count_bad, flat.split(_CHUNK_BYTES // flat.element_size())))
                if bad:
                    raise HemostatError(
                        ErrorCode.CHECKPOINT_NOT_FINITE,
                        f"{bad} of {flat.numel()} numbers of tensor {name} are not finite",
                        hint="the checkpoint is damaged: make or fetch it again",
                    )


def _count_bad(values: "torch.Tensor") -> int:
    """How many are NaN or infinite, by the exponent's bits: torch has no such test for every 8-bit float."""
    import torch

    mask: dict[torch.dtype, tuple[torch.dtype, int]] = {
        torch.bfloat16: (torch.int16, 0x7F80),
        torch.float16: (torch.int16, 0x7C00),
        torch.float8_e4m3fn: (torch.uint8, 0x7F),  # no infinity; NaN is all ones
        torch.float8_e5m2: (torch.uint8, 0x7C),
    }
    if values.dtype in mask:
        bits, ones = mask[values.dtype]
        return int(torch.count_nonzero((values.view(bits) & ones) == ones))
    return int(torch.count_nonzero(~torch.isfinite(values)))
