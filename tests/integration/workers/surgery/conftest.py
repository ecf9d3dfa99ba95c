from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.copies import Copy, copier


@pytest.fixture
def copy(tiny: Callable[..., Path], tmp_path: Path) -> Copy:
    """A tiny checkpoint of one's own, to be broken."""
    return copier(tiny, tmp_path)
