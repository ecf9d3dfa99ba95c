"""A kernel term that cannot be measured takes nothing from the points that were."""

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from workers.measuring.points.kernels import KernelTerms
from workers.measuring.points.record import PointRecord
from workers.measuring.points.runner import Setting
from workers.measuring.sides import Sides
from workers.process.handler import JobCancelled


class Failing(KernelTerms):
    """Fails at each packed point as it is told: no engine can be made to fail in a way that nobody foresaw."""

    def __init__(self, *errors: Exception) -> None:
        ground: Any = SimpleNamespace(part=SimpleNamespace(corpus=SimpleNamespace(windows=[])))
        context: Any = SimpleNamespace(progress=lambda *_: None)
        nothing: Any = None
        super().__init__(ground, nothing, nothing, nothing, context, window=8, key=lambda *_: "")
        self._errors = iter(errors)

    def _sides(self, setting: Setting, kept: ExitStack) -> Sides | None:
        raise next(self._errors)


def terms(*errors: Exception) -> list[str]:
    setting: Any = Setting((4,), ({"type": "quantize.rtn"},))  # type: ignore[arg-type]
    found = Failing(*errors).of([setting] * len(errors), [PointRecord(scheme="w4a16")] * len(errors))
    assert all(kernel.term is None for kernel in found)
    return [kernel.missing for kernel in found]


def test_whatever_fails_leaves_its_own_point_without_a_term(caplog: pytest.LogCaptureFixture) -> None:
    refused = HemostatError(ErrorCode.ENGINE_FAILED, "the kernel does not take groups of 24")
    assert terms(refused, RuntimeError("no foresight"), KeyError("key")) == [
        "the kernel does not take groups of 24",
        "measuring it failed unforeseen (RuntimeError)",
        "measuring it failed unforeseen (KeyError)",
    ]
    assert "a kernel term failed" in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), JobCancelled()])
def test_memory_that_ran_out_and_a_stop_are_not_swallowed(error: Exception) -> None:
    with pytest.raises(type(error)):
        terms(error)
