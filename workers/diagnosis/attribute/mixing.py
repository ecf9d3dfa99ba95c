"""Weights of one model with pieces of another's, of its own again, or of noise in their place.

    - theirs: the other model's piece, whose cost is measured.
    - control: the model's own piece, read and put in the same way: nothing may change.
    - twin: the own piece plus noise in a random direction, as long as the difference to the other's piece. It shows
      the cost of an error of this size that is unrelated to the model (the isotropic twin).

The twin's length is that of the weights as they are run: noise is scaled until the rounded weights differ by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from workers.diagnosis.attribute.sites import Piece
from workers.surgery.blockwise.skeleton import Read

# Relative deviation of the twin's length that is let pass, and how often it is scaled again for it.
TOLERANCE = 0.01
_TRIES = 12


@dataclass(frozen=True)
class Mode:
    """What is put in; `seed` names the direction of a twin."""

    kind: Literal["theirs", "control", "twin"] = "theirs"
    seed: int = 0

    @property
    def key(self) -> str:
        """Names it among all."""
        return self.kind if self.kind != "twin" else f"twin {self.seed}"


THEIRS, CONTROL = Mode(), Mode("control")


class Mixed:
    """Reads a model's own tensors, some pieces exchanged; `dtype` is what the weights run in."""

    def __init__(self, own: Read, other: Read, dtype: torch.dtype) -> None:
        self._own, self._other, self._dtype = own, other, dtype
        self._pieces: dict[str, list[Piece]] = {}
        self._mode = THEIRS

    def exchange(self, pieces: Iterable[Piece], mode: Mode) -> None:
        """From here on these pieces are exchanged; none: the model is itself."""
        self._pieces, self._mode = {}, mode
        for piece in pieces:
            self._pieces.setdefault(piece.tensor, []).append(piece)

    def __call__(self, name: str) -> torch.Tensor:
        """The tensor. Raises KeyError if one of the models lacks it, ValueError if the shapes differ."""
        own = self._own(name)
        pieces = self._pieces.get(name)
        if not pieces:
            return own
        own = own.to(self._dtype)
        source = self._own if self._mode.kind == "control" else self._other
        theirs = source(name).to(self._dtype)
        if theirs.shape != own.shape:
            raise ValueError(f"{name} is {tuple(theirs.shape)} in one model and {tuple(own.shape)} in the other")
        mixed = own.clone()
        for piece in pieces:
            into, out_of = _view(mixed, piece), _view(theirs, piece)
            if self._mode.kind == "twin":
                out_of = twin(into, out_of, _seed(self._mode.seed, piece))
            into.copy_(out_of)
        return mixed


def twin(own: torch.Tensor, theirs: torch.Tensor, seed: int) -> torch.Tensor:
    """`own` plus Gaussian noise, as far from it as `theirs` is (Frobenius), in the dtype of both."""
    target = float(torch.linalg.vector_norm(theirs.float() - own.float()))
    if target == 0:
        return own.clone()
    # Of the host's generator: the same direction on every device.
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(seed), device="cpu").to(own.device)
    plain = own.float()
    scale = target / float(torch.linalg.vector_norm(noise))
    found = own.clone()
    for _ in range(_TRIES):
        found = (plain + scale * noise).to(own.dtype)
        reached = float(torch.linalg.vector_norm(found.float() - plain))
        if abs(reached - target) <= TOLERANCE * target:
            break
        # below the spacing of the dtype next to nothing moves: then the noise has to grow
        scale *= min(4.0, target / reached) if reached > 0 else 4.0
    return found


def _view(tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
    return tensor if piece.dim is None else tensor.narrow(piece.dim, piece.start, piece.stop - piece.start)


def _seed(seed: int, piece: Piece) -> int:
    digest = hashlib.sha256(f"{seed} {piece}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**63
