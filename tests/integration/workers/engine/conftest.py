"""Engines of this process, shared by the tests: starting vLLM's import alone takes six seconds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.engines import residents
from workers.engine.pool import EnginePool
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust

Tiny = Callable[..., Path]
Packed = Callable[..., Path]


@pytest.fixture
def resident(pool: EnginePool) -> Iterator[Callable[[Path, Trust], ResidentEngine]]:
    """`resident(checkpoint, trust)`: an engine of its own, outside the pool, closed after the test."""
    with residents(pool) as start:
        yield start


@pytest.fixture(scope="session")
def packed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """`packed(kind, scheme, seed)`: a tiny checkpoint as llm-compressor packs it, made once a session."""
    from tests.support.packed import make_packed

    root = tmp_path_factory.mktemp("packed")
    made: dict[tuple[str, str, int], Path] = {}

    def make(kind: str, scheme: str, seed: int = 0) -> Path:
        key = (kind, scheme, seed)
        if key not in made:
            made[key] = make_packed(tiny(kind, seed=seed), root / f"{kind}-{scheme}-{seed}", scheme)
        return made[key]

    return make


@pytest.fixture(scope="session")
def windows() -> list[list[int]]:
    """Twelve windows of 2 to 128 tokens of the tiny models' vocabulary."""
    rng = np.random.default_rng(0)
    lengths = [128, 2, 17, 64, 1, 100, 128, 33, 5, 128, 90, 31]
    return [rng.integers(0, 320, length).tolist() for length in lengths]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Bit for bit."""
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )
