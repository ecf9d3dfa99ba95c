"""`make test-gpu` runs these tests on a CUDA device. `HEMOSTAT_TEST_DEVICE=cpu` runs them on the processor instead,
which shows that the tests themselves work (`tests/integration/test_gpu_tests.py`)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.gate import gpu_tests_device

Tiny = Callable[..., Path]


@pytest.fixture(scope="session")
def device() -> str:
    """Where the product computes: `cuda`, or what HEMOSTAT_TEST_DEVICE names."""
    return gpu_tests_device()


@pytest.fixture(scope="session")
def windows() -> list[list[int]]:
    """Windows of 2 to 128 tokens of the tiny models' vocabulary."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 320, length).tolist() for length in (128, 2, 17, 64, 100, 128, 33)]


@pytest.fixture
def released(device: str) -> Callable[[], int]:
    """Bytes of the device's memory that are taken, after what no one holds any more was given back."""

    def taken() -> int:
        if device != "cuda":
            from workers.engine.device import held_bytes

            return held_bytes(device)
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        return total - free

    return taken
