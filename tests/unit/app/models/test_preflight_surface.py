"""A surface as it is sent: refused before it is queued, with its place, and estimated by its settings."""

import json

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.jobs.parsing import parse_submission
from app.kinds.estimates import estimate
from app.kinds.preflight import check_request
from app.kinds.surface.request import SurfaceRequest
from app.models.checkpoint import inspect
from app.models.pace import Pace
from tests.support.asked import rejection

PRUNE = {"type": "prune.magnitude", "sparsity": {"sweep": [0.2, 0.5]}}
RTN = {"type": "quantize.rtn", "bits": {"sweep": {"from": 8, "to": 2, "points": 3}}, "group_size": 32}


@pytest.fixture
def registry(alone):
    return alone


def sent(*steps, **changes):
    body = {
        "kind": "surface",
        "reference": {"model": "llama"},
        "self_check": True,
        "candidate": {"model": "llama", "recipe": list(steps)},
        "text": {"source": "inline", "documents": [{"id": "d1", "text": "Two tokens and more of them."}]},
        "window": 64,
    }
    found = parse_submission(json.dumps(body | changes).encode())
    assert isinstance(found, SurfaceRequest)
    return found


def test_what_was_written_in_the_recipe_is_accepted(registry, settings):
    request = sent(PRUNE, RTN)
    check_request(request, registry, settings)
    assert [knob.values for knob in request.knobs] == [(0.2, 0.5), (8, 5, 2)]
    assert request.planned == 12


def test_every_setting_looks_at_its_calibration_text(registry, settings):
    def seconds(windows):
        gptq = RTN | {"type": "quantize.gptq", "calibration_windows": windows, "calibration_window": 256}
        return estimate(sent(PRUNE, gptq), registry, settings, Pace(1400.0, "as it is")).seconds

    tensors = inspect(registry.resolve("llama").checkpoint_path()).tensors
    parameters = sum(tensor.elements for name, tensor in tensors.items() if ".layers." in name)
    assert seconds(4096) - seconds(96) == pytest.approx(12 * 4000 * 256 * parameters / 4e10, rel=0.02)


def test_bad_surfaces_are_refused_with_their_place(registry, settings):
    error = rejection(sent(PRUNE, RTN | {"group_size": 7}), registry, settings)
    assert error.code is ErrorCode.GROUP_SIZE_MISMATCH
    assert error.pointer.startswith("/candidate/recipe/1/group_size")
    assert rejection(sent(PRUNE, RTN, window=100_000), registry, settings).pointer == "/window"
    with pytest.raises(HemostatError) as caught:
        sent(PRUNE, RTN | {"group_size": {"sweep": [32, 64]}})
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, "/candidate/recipe/1/group_size")
