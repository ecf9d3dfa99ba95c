"""The divergence's graphs run as they are written, without the seconds of a compiler."""

import pytest
import torch


@pytest.fixture(autouse=True)
def uncompiled():
    with torch.compiler.set_stance("force_eager"):
        yield
