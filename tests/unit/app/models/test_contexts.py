"""Which windows are refused, with what would do."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.kinds.mitigate.request import MitigateRequest
from app.kinds.sweep.request import SweepRequest
from app.models.checkpoint import inspect
from app.models.contexts import check_calibration_window, check_window
from tests.support.checked import checked, refusal

YARN = {"type": "context.yarn", "factor": 2}


@pytest.fixture(scope="module")
def folder(tiny):
    return tiny("llama")


def window_refusal(kind, folder, window, recipe, **fields):
    """None if the window is taken."""
    body = {"reference": {"model": "a"}, "candidate": {"model": "a", "recipe": recipe}, "window": window}
    name = kind.__name__.removesuffix("Request").lower()
    request = kind.model_validate(body | {"kind": name} | fields)
    info = inspect(folder)
    try:
        check_window(request, info, info, checked(info, *recipe))
    except HemostatError as error:
        assert (error.code, error.pointer) == (ErrorCode.WINDOW_TOO_LARGE, "/window")
        return error
    return None


def test_windows_end_where_the_candidate_s_context_does(folder):
    rtn = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    for window, recipe, hint in (
        (256, [], None),
        (257, [YARN], None),
        (512, [YARN], None),
        (512, [{"type": "context.linear", "factor": 4}], None),
        (257, [], "at most 256, or extend the candidate by a step such as context.yarn to 1.01 or more"),
        (1000, [], "3.91 or more"),
        (513, [YARN], "at most 512, or raise the factor of the context step to 2.01 or more"),
        (300, [rtn], "context.yarn"),
    ):
        error = window_refusal(CompareRequest, folder, window, recipe, self_check=True)
        assert error is None if hint is None else hint in error.hint


def test_a_sweep_may_read_as_far_as_each_of_its_settings(folder):
    knobs = [{"step": 0, "field": "factor", "values": [2, 4]}]
    assert window_refusal(SweepRequest, folder, 512, [YARN], knobs=knobs) is None
    assert "2.01 or more" in window_refusal(SweepRequest, folder, 513, [YARN], knobs=knobs).hint


def test_other_kinds_need_a_reference_that_reads_all(folder):
    assert "at most 256" in window_refusal(MitigateRequest, folder, 512, [YARN]).hint


AWQ = {"type": "quantize.awq", "bits": 4, "group_size": 32}
FIXED = {"type": "quantize.activations", "bits": 8, "calibration_window": 300}


def test_calibration_windows_end_with_the_context_at_that_step(folder):
    for recipe, at, longest in (
        ([AWQ], 0, 256),  # 512 by default
        ([AWQ | {"calibration_window": 257}], 0, 256),
        ([AWQ | {"calibration_window": 256}, YARN, AWQ | {"calibration_window": 513}], 2, 512),
        ([FIXED | {"dynamic": False}], 0, 256),
    ):
        error = refusal(folder, *recipe, beside=check_calibration_window)
        assert (error.code, error.pointer) == (ErrorCode.WINDOW_TOO_LARGE, f"/r/{at}/calibration_window")
        assert f"at most {longest}," in error.hint
    for recipe in ([AWQ | {"calibration_window": 256}], [YARN, AWQ | {"calibration_window": 512}], [FIXED]):
        checked(folder, *recipe, beside=check_calibration_window)
