"""One calibrator of each kind, of a tiny model, with numbers that do something."""

import pytest
import torch

from workers.calibrators.base import Base
from workers.calibrators.blocks import BlockCorrection, Blocks
from workers.calibrators.confidence import ConfidenceTemperature
from workers.calibrators.identity import Identity
from workers.calibrators.kinds import Chain
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import RowContext
from workers.calibrators.temperature import Temperature
from workers.calibrators.token_bias import TokenBias

D, V, T = 24, 67, 19


def make(kind: str) -> Base:
    """A calibrator of a kind, the same at every call."""
    generator = torch.Generator().manual_seed(3)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator) * 0.3

    ids = torch.tensor([0, 5, 66])
    if kind == "identity":
        return Identity()
    if kind == "temperature":
        return Temperature(1.3)
    if kind == "confidence":
        return ConfidenceTemperature(torch.tensor([-3.0, -1.0, -0.1]), torch.tensor([0.2, -0.1, 0.4]))
    if kind == "token_bias":
        return TokenBias(ids, torch.tensor([0.5, -1.25, 2.0]), V)
    if kind == "lowrank":
        return LowRank(normal(D, 4), normal(4, D), normal(D))
    if kind == "blocks":
        one = BlockCorrection(normal(2, D), normal(D, 2), normal(D), torch.tensor(5.0))
        return Blocks({1: one}, layers=3, hidden_size=D)
    return Chain([make("lowrank"), make("confidence"), Chain([Identity(), make("token_bias")])])


@pytest.fixture(name="hidden_TD")
def hidden() -> torch.Tensor:
    return torch.randn(T, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture(name="logits_TV")
def logits() -> torch.Tensor:
    return torch.randn(T, V, generator=torch.Generator().manual_seed(2)) * 3


@pytest.fixture
def context() -> RowContext:
    generator = torch.Generator().manual_seed(4)
    return RowContext(torch.arange(1, T + 1), torch.randint(0, V, (T,), generator=generator))
