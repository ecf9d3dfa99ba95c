"""Corrections of the residual stream after each decoder block: c = h + rms(h) · (up (down (h / rms(h))) + bias).

A row whose rms is above `limit` is left alone. Attention sinks are such rows: a first token or a delimiter whose state
is many times larger than others. A small relative change of a sink harms every row that attends to it.

A checkpoint brings the corrections in a file of its own (`Blocks.save`, `Blocks.load`).
They act inside the layers, so the last hidden state and the logits are left alone here.

    blocks.{l}.down [r, d], blocks.{l}.up [d, r], blocks.{l}.bias [d], blocks.{l}.limit [], float32; r = 0: bias alone
    metadata: format "hemostat.blocks/1", hidden_size, layers

Names: T rows, D hidden size, R rank.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as bytes_of

from app.contracts.errors import ErrorCode, HemostatError
from app.files import write_atomically
from workers.calibrators.base import Base, number, require, shape
from workers.calibrators.protocol import Calibrator, Parameter

FORMAT: Final = "hemostat.blocks/1"
EPSILON: Final = 1e-6
# A limit that no row is above.
NO_LIMIT: Final = float(torch.finfo(torch.float32).max)
_NAME = re.compile(r"blocks\.(0|[1-9][0-9]*)\.(down|up|bias|limit)")


def rms_of(stream_TD: torch.Tensor) -> torch.Tensor:
    """(T, 1): the root mean square of each row."""
    return (stream_TD.square().mean(-1, keepdim=True) + EPSILON).sqrt()


def corrected(
    stream_TD: torch.Tensor,
    down_RD: torch.Tensor,
    up_RD: torch.Tensor,
    bias_D: torch.Tensor,
    limit: torch.Tensor,
    kept_TR: torch.Tensor | None = None,
) -> torch.Tensor:
    """The corrected stream, in the dtype of `stream_TD`: computed in float32 (or wider), rounded once.

    `bias_D` and `limit` may have a row for each of the stream's. `kept_TR` is 1 for the directions of a row's own
    correction, 0 for those of others beside it; None: all are.
    """
    wide_TD = stream_TD.to(torch.promote_types(stream_TD.dtype, torch.float32))
    rms_T1 = rms_of(wide_TD)
    low_TR = wide_TD @ down_RD.T.to(wide_TD.dtype)  # the factors rms and 1 / rms are one
    if kept_TR is not None:
        low_TR = low_TR * kept_TR
    linear_TD = torch.addmm(wide_TD, low_TR, up_RD.to(wide_TD.dtype))
    corrected_TD = torch.addcmul(linear_TD, rms_T1, bias_D.to(wide_TD.dtype)).to(stream_TD.dtype)
    return torch.where(rms_T1 <= limit, corrected_TD, stream_TD)


class BlockCorrection:
    """The correction after one block: `down_RD`, `up_DR`, `bias_D`, and the scalar `limit`; all float32.
    R may be 0.

    Raises ValueError if they do not fit together, are not float32, or hold a number that is not finite.
    """

    def __init__(self, down_RD: torch.Tensor, up_DR: torch.Tensor, bias_D: torch.Tensor, limit: torch.Tensor) -> None:
        require(
            bias_D.ndim == 1
            and down_RD.ndim == 2
            and down_RD.shape == up_DR.T.shape
            and down_RD.shape[1:] == bias_D.shape,
            f"down {shape(down_RD)}, up {shape(up_DR)} and bias {shape(bias_D)} do not fit together",
        )
        require(limit.ndim == 0 and bool(limit > 0), f"limit {shape(limit)} is no number above 0")
        for name, tensor in (("down", down_RD), ("up", up_DR), ("bias", bias_D), ("limit", limit)):
            require(tensor.dtype == torch.float32, f"{name} is {tensor.dtype}, expected torch.float32")
            require(bool(tensor.isfinite().all()), f"{name} holds a number that is not finite")
        self.down_RD = down_RD
        self.up_DR = up_DR
        self.bias_D = bias_D
        self.limit = limit

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.bias_D.shape[0])

    @property
    def rank(self) -> int:
        """R."""
        return int(self.down_RD.shape[0])

    def __call__(self, stream_TD: torch.Tensor) -> torch.Tensor:
        """The corrected stream, in the dtype of `stream_TD`."""
        return corrected(stream_TD, self.down_RD, self.up_DR.T, self.bias_D, self.limit)

    def to(self, device: torch.device) -> BlockCorrection:
        """The same on another device."""
        return BlockCorrection(*(one.to(device) for one in (self.down_RD, self.up_DR, self.bias_D, self.limit)))


class Blocks(Base, Mapping[int, BlockCorrection]):
    """Block → its correction, for a model of `layers` blocks of width `hidden_size`. A block without one is left alone.

    Raises ValueError if a block or a width is not the model's.
    """

    KIND: ClassVar[str] = "blocks"

    def __init__(self, corrections: Mapping[int, BlockCorrection], *, layers: int, hidden_size: int) -> None:
        for block, one in corrections.items():
            require(0 <= block < layers, f"block {block} of a model of {layers}")
            require(one.hidden_size == hidden_size, f"block {block} is {one.hidden_size} wide, expected {hidden_size}")
        self._corrections = dict(sorted(corrections.items()))
        self._hidden_size = hidden_size
        self.layers = layers

    def __getitem__(self, block: int) -> BlockCorrection:
        return self._corrections[block]

    def __iter__(self) -> Iterator[int]:
        return iter(self._corrections)

    def __len__(self) -> int:
        return len(self._corrections)

    @property
    def hidden_size(self) -> int:
        """D."""
        return self._hidden_size

    def describe(self) -> Mapping[str, Parameter]:
        """Sizes of the model, how many blocks are corrected, the largest rank."""
        return {
            "hidden_size": self.hidden_size,
            "layers": self.layers,
            "corrected": len(self),
            "rank": max((one.rank for one in self.values()), default=0),
        }

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Named as in the file; a correction of rank 0 has its bias alone."""
        found: dict[str, torch.Tensor] = {}
        for block, one in self.items():
            found |= {f"blocks.{block}.bias": one.bias_D, f"blocks.{block}.limit": one.limit}
            if one.rank:
                found |= {f"blocks.{block}.down": one.down_RD, f"blocks.{block}.up": one.up_DR}
        return found

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From its sizes and tensors."""
        made = cls._of(tensors, int(number(parameters, "layers")), int(number(parameters, "hidden_size")))
        require(dict(made.describe()) == dict(parameters), "its tensors are not those of the description")
        return made

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same on another device; its tensors stay float32."""
        del dtype
        corrections = {block: one.to(device) for block, one in self.items()}
        return type(self)(corrections, layers=self.layers, hidden_size=self.hidden_size)

    def save(self, file: Path) -> None:
        """Writes the file of a checkpoint; it appears whole."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(self.tensors().items())}
        sizes = {"hidden_size": str(self.hidden_size), "layers": str(self.layers)}
        write_atomically(file, bytes_of(tensors, {"format": FORMAT, **sizes}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of sizes and tensors; not of the file, whose metadata has no fixed order."""
        found = hashlib.sha256(f"{FORMAT} {self.hidden_size} {self.layers}".encode())
        for name, tensor in sorted(self.tensors().items()):
            found.update(f"\0{name} {shape(tensor)}\0".encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    @classmethod
    def load(cls, file: Path, device: torch.device) -> Self:
        """The corrections of a checkpoint's file.

        Raises CHECKPOINT_INCOMPLETE if there is no such file, CHECKPOINT_CORRUPT if it is damaged, of another format,
        or holds a number that is not finite.
        """
        if not file.is_file():
            raise HemostatError(
                ErrorCode.CHECKPOINT_INCOMPLETE,
                f"{file.name}, the file of the block corrections, is not in {file.parent.name}",
                hint="copy the whole folder",
            )
        try:
            with safe_open(file, "pt", device=str(device)) as held:
                told = held.metadata() or {}
                require(told.get("format") == FORMAT, f"its format is {told.get('format')!r}, expected {FORMAT!r}")
                tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - it is no mapping
                return cls._of(tensors, int(told["layers"]), int(told["hidden_size"]))
        except (ValueError, KeyError, SafetensorError) as error:
            raise HemostatError(
                ErrorCode.CHECKPOINT_CORRUPT,
                f"{file.name} holds no block corrections: {error}",
                hint="write it again, or copy it again",
            ) from error

    @classmethod
    def _of(cls, tensors: Mapping[str, torch.Tensor], layers: int, hidden_size: int) -> Self:
        parts: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            found = _NAME.fullmatch(name)
            require(found is not None, f"it has a tensor {name}")
            if found is not None:
                parts.setdefault(int(found[1]), {})[found[2]] = tensor
        return cls(
            {block: _correction(block, held) for block, held in parts.items()}, layers=layers, hidden_size=hidden_size
        )


def blocks_of(calibrator: Calibrator) -> list[Blocks]:
    """The corrections within the layers that a calibrator, or a chain of some, has."""
    return [part for part in getattr(calibrator, "parts", (calibrator,)) if isinstance(part, Blocks)]


def stream_of(calibrator: Calibrator) -> str:
    """Names the stream that a calibrator's corrections within the layers make; "" is the plain one."""
    return "+".join(blocks.digest for blocks in blocks_of(calibrator))


def _correction(block: int, held: Mapping[str, torch.Tensor]) -> BlockCorrection:
    whole = ({"bias", "limit"}, {"bias", "limit", "down", "up"})
    require(set(held) in whole, f"block {block} has {', '.join(sorted(held))} alone")
    bias_D = held["bias"]
    none_RD = bias_D.new_empty(0, bias_D.numel())
    return BlockCorrection(held.get("down", none_RD), held.get("up", none_RD.T), bias_D, held["limit"])
