"""A home with the tiny model as `tiny`, and an engine room for the tests of one file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import Settings


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    return home_of({"tiny": tiny("llama")})
