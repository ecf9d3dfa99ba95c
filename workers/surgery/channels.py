"""Which channels of a checkpoint were scaled, and by how much: the record that goes with its weights.

Where channels are scaled down in what comes before a layer and up in the layer (`quantize_folding`), the function stays
the same. A weight is then no longer to be compared with, or added to, the unmodified model's: it is in another
frame. W' = t ⊙ W ⊙ s, with t for each output (rows divided for the layer behind) and s for each input. A bias and a
norm's gain have a factor for each channel.

The record is beside the weights as `channels.npz`, and is part of the checkpoint's fingerprint: the same step gives
other weights on it. A checkpoint without one is in its own frame.

Names: O outputs, I inputs of a matrix, P channels of a norm or a bias.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CHANNELS, CheckpointInfo
from workers.surgery.gains import offset_of

# A tensor by its name.
Read = Callable[[str], torch.Tensor]

_INPUTS: Final = "inputs"
_OUTPUTS: Final = "outputs"  # of a vector: its channels


class Channels:
    """Factors by the tensor's name, float32, on the host.

    `offset`: what a norm's stored weight is less than its gain.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self._offset = offset
        self._factors: dict[str, dict[str, torch.Tensor]] = {_INPUTS: {}, _OUTPUTS: {}}

    @classmethod
    def of(cls, info: CheckpointInfo) -> "Channels":
        """A checkpoint's; empty if none was scaled. Raises CHECKPOINT_CORRUPT."""
        return cls.load(info.path, offset_of(info))

    @classmethod
    def load(cls, folder: Path, offset: float = 0.0) -> "Channels":
        """What a folder holds; empty if it holds no record. Raises CHECKPOINT_CORRUPT."""
        found = cls(offset)
        file = folder / CHANNELS
        if not file.is_file():
            return found
        try:
            with np.load(file, allow_pickle=False) as stored:
                for key in stored.files:
                    side, _, name = key.partition("/")
                    found._factors[side][name] = _checked(key, torch.from_numpy(stored[key]))
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise _corrupt(f"{file.name} cannot be read: {error}") from error
        return found

    def __bool__(self) -> bool:
        return any(self._factors.values())

    def save(self, folder: Path) -> None:
        """Writes the record, or takes away the one that is there where nothing is scaled."""
        arrays = {
            f"{side}/{name}": factor.numpy()
            for side, factors in self._factors.items()
            for name, factor in sorted(factors.items())
        }
        if not arrays:
            (folder / CHANNELS).unlink(missing_ok=True)
            return
        with (folder / CHANNELS).open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def scale(self, name: str, *, inputs: torch.Tensor | None = None, outputs: torch.Tensor | None = None) -> None:
        """The tensor was multiplied by these, (I) and (O), on top of what it was by before; a norm's gain or a bias by
        `outputs` (P)."""
        for side, factor in ((_INPUTS, inputs), (_OUTPUTS, outputs)):
            if factor is not None:
                before = self._factors[side].pop(name, None)
                added = factor.detach().to("cpu", torch.float32)
                whole = added.clone() if before is None else before * added
                if bool((whole != 1).any()):
                    self._factors[side][name] = whole

    def moved(self, name: str, tensor: torch.Tensor, *, whole: bool = True) -> torch.Tensor:
        """A tensor of the unmodified model's frame as it is in this checkpoint's: float32, or itself where it is the
        same in both. Without `whole` a side that has another length here (heads or channels went, or stand twice) is
        left as it is; else that is CHECKPOINT_CORRUPT."""
        if whole:
            return self._scaled(name, tensor, self._factors)
        lengths = {_INPUTS: tensor.shape[-1:], _OUTPUTS: tensor.shape[:1]}
        fitting = {
            side: {name: factors[name]}
            for side, factors in self._factors.items()
            if name in factors and (len(factors[name]),) == tuple(lengths[side])
        }
        return self._scaled(name, tensor, fitting)

    def meaning(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The way back: what a tensor of this checkpoint means in the unmodified model's frame."""
        inverse = {
            side: {name: factors[name].reciprocal()} for side, factors in self._factors.items() if name in factors
        }
        return self._scaled(name, tensor, inverse)

    def alike(self, name: str, other: "Channels") -> bool:
        """Whether the tensor is scaled the same in both."""
        for side, factors in self._factors.items():
            one, two = factors.get(name), other._factors[side].get(name)
            if (one is None) != (two is None) or (one is not None and two is not None and not torch.equal(one, two)):
                return False
        return True

    def copy(self, name: str, of: "Channels", other: str) -> None:
        """`name` is scaled as `other` is in `of`."""
        self.forget(name)
        for side, factors in of._factors.items():
            if other in factors:
                self._factors[side][name] = factors[other]

    def forget(self, name: str | None = None) -> None:
        """Nothing is known of the tensor (default: of any)."""
        for factors in self._factors.values():
            if name is None:
                factors.clear()
            else:
                factors.pop(name, None)

    def take(self, name: str, *, inputs: torch.Tensor | None = None, outputs: torch.Tensor | None = None) -> None:
        """The tensor has these of its inputs and outputs now, by their old numbers, in this order. A channel that went
        takes its factor with it, and a copy has the factor of what it was copied from."""
        for side, chosen in ((_INPUTS, inputs), (_OUTPUTS, outputs)):
            factor = self._factors[side].pop(name, None)
            if factor is None:
                continue
            taken = factor if chosen is None else factor[chosen.cpu()]
            if bool((taken != 1).any()):
                self._factors[side][name] = taken

    def reshaped(self, name: str, shape: tuple[int, ...]) -> None:
        """The tensor has this shape now: what was known of a side that has another length is forgotten."""
        for side, length in ((_INPUTS, shape[-1:]), (_OUTPUTS, shape[:1])):
            factor = self._factors[side].get(name)
            if factor is not None and (len(factor),) != length:
                del self._factors[side][name]

    def _scaled(
        self, name: str, tensor: torch.Tensor, factors: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> torch.Tensor:
        inputs_I, outputs_O = (factors.get(side, {}).get(name) for side in (_INPUTS, _OUTPUTS))
        if inputs_I is None and outputs_O is None:
            return tensor
        shape = tuple(tensor.shape)
        fits_inputs = inputs_I is None or (len(shape) == 2 and len(inputs_I) == shape[1])
        fits_outputs = outputs_O is None or (bool(shape) and len(outputs_O) == shape[0])
        if not (fits_inputs and fits_outputs):
            raise _corrupt(f"{CHANNELS} does not fit {name}, which has the shape {shape}")
        scaled = tensor.to(torch.float32)
        if inputs_I is not None:
            scaled = scaled * inputs_I.to(scaled.device)
        if outputs_O is None:
            return scaled
        outputs_O = outputs_O.to(scaled.device)
        if len(shape) > 1:
            return scaled * outputs_O[:, None]
        offset = 0.0 if name.endswith(".bias") else self._offset
        return (scaled + offset) * outputs_O - offset


def framed(read: Read, frame: Channels, into: Channels) -> Read:
    """Reads a model's tensors, which are in its `frame`, as they are in another model's. Norms and biases keep their
    dtype: a norm's factor is what its rounding made it, so that the same norm is the same number for number. Of a
    matrix of another shape than the other model's the sides that both have alike are scaled. The other side and what
    is before or behind it change places together, and mean the same unscaled."""

    def found(name: str) -> torch.Tensor:
        tensor = read(name)
        if frame.alike(name, into):
            return tensor
        moved = into.moved(name, frame.meaning(name, tensor), whole=False)
        return moved.to(tensor.dtype) if moved.ndim == 1 else moved

    return found


def _checked(key: str, factor: torch.Tensor) -> torch.Tensor:
    if factor.dtype != torch.float32 or factor.ndim != 1 or not bool((factor.isfinite() & (factor != 0)).all()):
        raise ValueError(f"{key} is no row of factors")
    return factor


def _corrupt(detail: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_CORRUPT,
        detail,
        hint="it belongs to its own weights: copy both again, or make the checkpoint again",
    )
