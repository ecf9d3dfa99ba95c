"""Unit tests run the graphs uncompiled: the same operations in the same order, without the seconds of a compiler."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.reference_stores import HUGE
from workers.distributions import reference_store
from workers.distributions.reference_store import ReferenceStore


@pytest.fixture
def eager() -> Iterator[None]:
    """What is wrapped in torch.compile runs as it is written."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def store(tmp_path: Path) -> ReferenceStore:
    return ReferenceStore(tmp_path / "references", HUGE)


@pytest.fixture(autouse=True)
def unverified() -> Iterator[None]:
    """Every test stands for a process of its own."""
    reference_store._verified.clear()
    yield
    reference_store._verified.clear()
