"""The share of a model that a knob removes, against counts by hand on a tiny model of known shapes."""

import pytest

from app.kinds.sweep.request import SweepRequest
from app.models.checkpoint import inspect
from app.models.knobs import lift
from app.models.shares import shares


@pytest.fixture(scope="module")
def info(tiny):
    return inspect(tiny("llama"))


def of(info, step):
    request = SweepRequest.model_validate(
        lift({"kind": "sweep", "reference": {"model": "m"}, "candidate": {"model": "m", "recipe": [step]}})
    )
    return shares(info, request.candidate.recipe, request.knobs[0])


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"type": "prune.magnitude", "sparsity": {"sweep": [0.2, 0.7]}}, [0.2, 0.7]),
        ({"type": "prune.magnitude", "pattern": {"sweep": ["2:4", "1:4"]}}, [0.5, 0.75]),
        ({"type": "quantize.rtn", "bits": {"sweep": [8, 4, 2]}}, [0.5, 0.75, 0.875]),
        # q, o: 64 × 64; k, v: 32 × 64; the MLP's three: 128 × 64. Full ranks 64, 64, 32, 32, 64, 64, 64.
        (
            {"type": "lowrank.svd", "rank": {"sweep": [16] * 1 + [8]}},
            [1 - (5 * 16 / 64 + 2 * 16 / 32) / 7, 1 - (5 * 8 / 64 + 2 * 8 / 32) / 7],
        ),
        ({"type": "lowrank.svd", "ratio": {"sweep": [0.1, 0.5]}}, [0.1, 0.5]),
        ({"type": "prune.layers", "count": {"sweep": [1, 2]}}, [1 / 3, 2 / 3]),
        ({"type": "prune.layers", "layers": {"sweep": [[0], [0, 2]]}}, [1 / 3, 2 / 3]),
        ({"type": "prune.channels", "count": {"sweep": [32, 64]}}, [0.25, 0.5]),
    ],
)
def test_shares_are_those_of_the_definition(info, step, expected):
    assert of(info, step) == pytest.approx(expected)


@pytest.mark.parametrize(
    "step",
    [
        {"type": "norm.scale", "factor": {"sweep": [1.1, 2.0]}},
        {"type": "context.linear", "factor": {"sweep": [2.0, 4.0]}},
        {"type": "quantize.rtn", "bits": 4, "group_size": {"sweep": [32, 64]}},
        {"type": "repair.lowrank", "rank": {"sweep": [4, 8]}},
    ],
)
def test_other_knobs_remove_no_share(info, step):
    assert of(info, step) is None
