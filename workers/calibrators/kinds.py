"""All kinds of calibrators, by the name they are stored under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

import torch

from workers.calibrators.base import Base, require
from workers.calibrators.blocks import Blocks
from workers.calibrators.confidence import ConfidenceTemperature
from workers.calibrators.identity import Identity
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import Parameter, RowContext
from workers.calibrators.temperature import Temperature
from workers.calibrators.token_bias import TokenBias


class Chain(Base):
    """Several calibrators, one after the other: all hidden corrections before the head, all logit corrections after it.

    A later part sees what the earlier ones made. Parts that are chains themselves are taken apart, identities left out.
    Raises ValueError if the parts are of models of different sizes.
    """

    KIND: ClassVar[str] = "chain"

    def __init__(self, parts: Sequence[Base]) -> None:
        flat: list[Base] = []
        for part in parts:
            flat.extend(part.parts if isinstance(part, Chain) else [part])
        self.parts: tuple[Base, ...] = tuple(part for part in flat if not isinstance(part, Identity))
        self._hidden_size = _only([part.hidden_size for part in self.parts], "hidden sizes")
        self._vocabulary = _only([part.vocabulary for part in self.parts], "vocabularies")

    @property
    def hidden_size(self) -> int | None:
        """D of its parts."""
        return self._hidden_size

    @property
    def vocabulary(self) -> int | None:
        """V of its parts."""
        return self._vocabulary

    def apply_hidden(self, hidden_TD: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Each part's in turn."""
        for part in self.parts:
            hidden_TD = part.apply_hidden(hidden_TD, context)
        return hidden_TD

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Each part's in turn."""
        for part in self.parts:
            logits_TV = part.apply_logits(logits_TV, context)
        return logits_TV

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Each part's in turn."""
        for part in self.parts:
            logits_TV = part.apply_logits_(logits_TV, context)
        return logits_TV

    def describe(self) -> Mapping[str, Parameter]:
        """What its parts tell, each name led by the part's place: `0.rank`."""
        told: dict[str, Parameter] = {"parts": len(self.parts)}
        for place, part in enumerate(self.parts):
            told[f"{place}.kind"] = part.kind
            told |= {f"{place}.{name}": value for name, value in part.describe().items()}
        return told

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Those of its parts, named likewise."""
        return {
            f"{place}.{name}": tensor
            for place, part in enumerate(self.parts)
            for name, tensor in part.tensors().items()
        }

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From those of its parts."""
        count = parameters["parts"]
        require(isinstance(count, int) and 0 <= count <= 64, f"{count} parts")
        made = []
        for place in range(int(count)):
            lead = f"{place}."
            own = {name.removeprefix(lead): value for name, value in parameters.items() if name.startswith(lead)}
            kind = str(own.pop("kind", ""))
            require(kind != cls.KIND, "a chain within a chain")
            held = {name.removeprefix(lead): tensor for name, tensor in tensors.items() if name.startswith(lead)}
            made.append(restore(kind, own, held))
        return cls(made)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Each part's."""
        return type(self)([part.to(device, dtype) for part in self.parts])


KINDS: Final[dict[str, type[Base]]] = {
    made.KIND: made for made in (Identity, Temperature, ConfidenceTemperature, TokenBias, LowRank, Blocks, Chain)
}


def restore(kind: str, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Base:
    """The calibrator that they describe. ValueError for an unknown kind; that or KeyError if they do not fit."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of calibrator {kind!r}")
    return KINDS[kind].restore(parameters, tensors)


def _only(sizes: Sequence[int | None], what: str) -> int | None:
    known = {size for size in sizes if size is not None}
    require(len(known) <= 1, f"parts of different {what}: {sorted(known)}")
    return next(iter(known), None)
