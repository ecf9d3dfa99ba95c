"""Tensors of a checkpoint, read one at a time and checked."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from safetensors import safe_open

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo

# Numbers that are checked at once.
CHUNK = 1 << 24


class TensorReader:
    """Reads tensors by name, on to `device`. Files are mapped, so what is read is a copy of one tensor at most."""

    def __init__(self, info: CheckpointInfo, stack: ExitStack, device: torch.device) -> None:
        self._info, self.device = info, device
        self._files = {
            file: stack.enter_context(safe_open(info.path / file, framework="pt", device="cpu")) for file in info.files
        }

    def read(self, name: str) -> torch.Tensor:
        """The tensor. Raises `HemostatError(CHECKPOINT_NOT_FINITE)` if it holds NaN or infinity."""
        tensor: torch.Tensor = self._files[self._info.tensors[name].file].get_tensor(name).to(self.device)
        check_finite(name, tensor)
        return tensor


@contextmanager
def open_tensors(info: CheckpointInfo, device: str | torch.device) -> Iterator[TensorReader]:
    """A reader for the length of a `with`."""
    with ExitStack() as stack:
        yield TensorReader(info, stack, torch.device(device))


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Raises `HemostatError(CHECKPOINT_NOT_FINITE)` unless every value is a number. Integers always are."""
    if not tensor.is_floating_point():
        return
    flat = tensor.reshape(-1)
    bad, first = 0, -1
    for start in range(0, flat.numel(), CHUNK):
        chunk = flat[start : start + CHUNK]
        # fp8 has no isfinite of its own
        finite = torch.isfinite(chunk if chunk.element_size() > 1 else chunk.to(torch.float32))
        if not bool(finite.all()):
            where = (~finite).nonzero().flatten()
            first = start + int(where[0]) if first < 0 else first
            bad += len(where)
    if bad:
        index = [int(part) for part in torch.unravel_index(torch.tensor(first), tensor.shape)]
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FINITE,
            f"tensor {name} holds {'1 value that is' if bad == 1 else f'{bad} values that are'} NaN or infinite, "
            f"the first at {index}",
            hint="make the checkpoint again; quantizing with too little damping is a common cause",
        )
