"""Unit tests run the graphs uncompiled: the same operations in the same order, without the seconds of a compiler."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def eager() -> Iterator[None]:
    """What is wrapped in torch.compile runs as it is written."""
    with torch.compiler.set_stance("force_eager"):
        yield
