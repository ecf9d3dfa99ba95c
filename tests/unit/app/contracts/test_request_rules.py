"""Rules of a request that span more than one value are refused at the field that breaks them."""

import json
from typing import get_args

import pytest

from app.contracts.errors import ErrorCode
from app.jobs.parsing import parse_submission
from app.kinds.registry import KINDS
from app.problems import RequestError

RTN = {"type": "quantize.rtn", "bits": 4}
SWEPT = {"model": "m", "recipe": [{"type": "prune.magnitude", "sparsity": {"sweep": [0.1, 0.2, 0.3]}}]}


@pytest.mark.parametrize(
    ("changes", "pointer", "detail"),
    [
        (
            {"kind": "sweep", "candidate": SWEPT, "bounds": {"k1": [5, 1]}},
            "/bounds/k1",
            "The lower bound of k1, 5, is above the upper, 1.",
        ),
        (
            {"kind": "trajectory", "decoders": [{"name": "greedy"}, {"name": "beam"}, {"name": "greedy"}]},
            "/decoders",
            "Decoder greedy is given twice: use another job for its other parameters.",
        ),
        (
            {"kind": "trajectory", "candidates": [{"model": "m", "recipe": [RTN]}]},
            "/candidates",
            "A candidate is given twice: the same alias and the same recipe.",
        ),
        (
            {"kind": "attribute", "directions": ["restore"]},
            "/directions",
            "Directions must contain swap: it chooses the parts to restore.",
        ),
    ],
)
def test_the_field_is_named(changes, pointer, detail):
    body = {"reference": {"model": "m"}, "candidate": {"model": "m", "recipe": [RTN]}} | changes
    with pytest.raises(RequestError) as refused:
        parse_submission(json.dumps(body).encode())
    assert [(error.code, error.pointer, error.detail) for error in refused.value.errors] == [
        (ErrorCode.INVALID_REQUEST, pointer, detail)
    ]


def test_what_is_wrong_with_the_first_candidate_is_told_alone():
    body = {
        "kind": "trajectory",
        "reference": {"model": "m"},
        "candidate": {"model": "m", "recipe": [{"type": "quantize.rtn", "bits": 99}]},
        "candidates": [{"model": "n"}],
    }
    with pytest.raises(RequestError) as refused:
        parse_submission(json.dumps(body).encode())
    assert [error.pointer for error in refused.value.errors] == ["/candidate/recipe/0/bits"]


def test_a_kinds_name_is_its_requests_and_its_reports():
    for name, kind in KINDS.items():
        assert {name} == {*get_args(kind.request.model_fields["kind"].annotation)} == {kind.name}
        assert kind.report.model_fields["kind"].default == name
