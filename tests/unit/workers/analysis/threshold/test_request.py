"""What a file may hold, and the exact place of each fault."""

import json
from typing import Any

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from tests.unit.workers.analysis.threshold.curves import CURVES, FILE
from workers.analysis.threshold.request import parse_request

POINTS = [[0.1, 5.1], [0.2, 5.2], [0.3, 5.4], [0.4, 5.9], [0.5, 7.5]]

PARAMS = {"a": 6.0, "b": 0.05, "s0": 0.35, "k1": 1.0, "k2": 9.0}


def with_point(index: int, point: Any) -> list[Any]:
    return [point if at == index else old for at, old in enumerate(POINTS)]


def test_points_bounds_and_dense_are_taken() -> None:
    request = parse_request(
        json.dumps({"points": POINTS[::-1], "bounds": {"a": [None, 50], "k2": [0, 0], "b": None}, "dense": 5})
    )
    assert request.curve.s_N.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert request.bounds.a == (None, 50)
    assert request.bounds.k2 == (0, 0)
    assert request.bounds.b == request.bounds.s0 == (None, None)
    assert request.dense == 5


def test_each_published_curve_is_taken_from_the_file_as_it_is() -> None:
    for name, case in CURVES.items():
        request = parse_request(FILE.read_text(), name)
        assert (request.curve.s_N.tolist(), request.curve.log_N.tolist()) == (
            case.curve.s_N.tolist(),
            case.curve.log_N.tolist(),
        )
        assert request.bounds == case.bounds
        assert (request.publication.params(), request.publication.stated_log_sse) == (case.params, case.log_sse)


@pytest.mark.parametrize(
    ("data", "pointer", "detail", "hint"),
    [
        ([1], "", "a list, not an object", "points"),
        ({"points": None}, "/points", "'points' is null", ""),
        ({"points": POINTS[:4]}, "/points", "4 points are given", "coefficients"),
        ({"points": [[i / 300, 5] for i in range(1, 202)]}, "/points", "201 points", "out"),
        ({"points": with_point(2, [0.3])}, "/points/2", "Point 3 is a list of 1", ""),
        ({"points": with_point(1, [0, 5])}, "/points/1/0", "s of point 2 is 0, outside (0, 1]", '"dense"'),
        ({"points": with_point(4, [50, 5])}, "/points/4/0", "outside (0, 1]", "percentage"),
        ({"points": with_point(3, [0.4, 0])}, "/points/3/1", "positive, not 0", ""),
        ({"points": with_point(3, [0.4, 10**400])}, "/points/3/1", "not a finite", ""),
        ({"points": with_point(3, [0.4, None])}, "/points/3/1", "not null", ""),
        ({"points": with_point(3, [0.2, 6])}, "/points/3/0", "Points 2 and 4 have the same s, 0.2", "once"),
        ({"points": POINTS, "bounds": {"b": 0}}, "/bounds/b", "not a pair", "null"),
        ({"points": POINTS, "bounds": {"k1": [5, 3]}}, "/bounds/k1", "5, is above the upper, 3", "Swap"),
        ({"points": POINTS, "bounds": {"a": [None, 0]}}, "/bounds/a/1", "a is positive", ""),
        ({"points": POINTS, "bounds": {"s0": [0.6, 0.9]}}, "/bounds/s0", "outside the measured range", "overlap"),
        ({"points": POINTS, "bounds": {"k3": [0, 1]}}, "/bounds/k3", "no field 'k3'", "did you mean 'k"),
        ({"points": POINTS, "a/b~c": 1}, "/a~1b~0c", "no field 'a/b~c'", "valid: bounds, data, dense, params, points"),
        ({"points": POINTS, "data": POINTS}, "/data", "mean the same", "Keep one"),
        ({"data": None}, "/data", "'data' is null", ""),
        ({"points": POINTS, "params": {"a": 5, "b": 0}}, "/params/s0", "has no s0", "all of a, b, s0"),
        ({"points": POINTS, "params": PARAMS | {"a": 0}}, "/params/a", "a is positive", "not its logarithm"),
        ({"points": POINTS, "published_log_sse": 1}, "/published_log_sse", "without its coefficients", "params"),
        ({"one": {"points": POINTS}, "two": {"data": POINTS}}, "", "2 curves", "--curve: one, two"),
        ({"a/b": {"points": POINTS, "dense": 0}}, "/a~1b/dense", "positive", ""),
        ({"points": POINTS, "params": PARAMS | {"b": 1e200}}, "/params", "not finite on the curve", "as published"),
    ],
)
def test_each_fault_is_named_with_its_place(data: Any, pointer: str, detail: str, hint: str) -> None:
    with pytest.raises(HemostatError) as caught:
        parse_request(json.dumps(data))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.pointer == pointer
    assert detail in caught.value.detail
    assert hint in caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "not JSON"),
        ("{points}", "line 1 column 2"),
        ('{"points": [], "points": []}', "names 'points' twice"),
        ("[" * 100_000, "nested too deep"),
        ('{"points": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_what_is_not_json_is_said_to_be_none(text: str, detail: str) -> None:
    with pytest.raises(HemostatError) as caught:
        parse_request(text)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.pointer == ""
    assert detail in caught.value.detail
    assert "for example" in caught.value.hint or "Write it as" in caught.value.hint


def test_a_curve_of_several_is_taken_by_its_name_with_what_was_published_for_it() -> None:
    told = {"figure": "fig9", "data": POINTS, "bounds": {"b": [0, None]}, "params": PARAMS, "published_log_sse": 0.125}
    text = json.dumps({"w/o": told, "bare": {"points": POINTS[::-1]}})
    request = parse_request(text, "w/o")
    assert (request.publication.params(), request.publication.stated_log_sse) == (PARAMS, 0.125)
    assert request.bounds.b == (0, None)
    for alone in ({"w/o": told}, told):
        assert parse_request(json.dumps(alone)).publication == request.publication
    assert parse_request(text, "bare").publication is None


@pytest.mark.parametrize("data", [{"one": {"points": POINTS}}, {"points": POINTS}, {}])
def test_a_name_that_no_curve_has_is_refused(data: Any) -> None:
    with pytest.raises(HemostatError, match=r"no curve 'two'|without a name") as caught:
        parse_request(json.dumps(data), "two")
    assert "--curve" in caught.value.hint
