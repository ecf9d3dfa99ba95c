"""What a file may hold, and the exact place of each fault."""

import json
from typing import Any

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from workers.diagnosis.threshold.request import parse_request

POINTS = [[0.1, 5.1], [0.2, 5.2], [0.3, 5.4], [0.4, 5.9], [0.5, 7.5]]


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


def test_bounds_and_dense_are_optional() -> None:
    request = parse_request(json.dumps({"points": POINTS}))
    assert request.bounds.as_json() == {name: [None, None] for name in ("a", "b", "s0", "k1", "k2")}
    assert request.dense is None


@pytest.mark.parametrize(
    ("data", "pointer", "detail", "hint"),
    [
        ([1], "", "a list, not an object", "points"),
        ({}, "/points", "'points' is missing", "points"),
        ({"points": None}, "/points", "'points' is null", ""),
        ({"points": {"0.1": 5}}, "/points", "an object, not a list", ""),
        ({"points": POINTS[:4]}, "/points", "4 points are given", "coefficients"),
        ({"points": [[i / 300, 5] for i in range(1, 202)]}, "/points", "201 points", "out"),
        ({"points": with_point(2, [0.3])}, "/points/2", "Point 2 is a list of 1", ""),
        ({"points": with_point(2, "0.3")}, "/points/2", "Point 2 is a string", ""),
        ({"points": with_point(1, [0, 5])}, "/points/1/0", "s of point 1 is 0, outside (0, 1]", '"dense"'),
        ({"points": with_point(1, [-0.5, 5])}, "/points/1/0", "outside (0, 1]", "share"),
        ({"points": with_point(4, [50, 5])}, "/points/4/0", "outside (0, 1]", "percentage"),
        ({"points": with_point(4, ["a", 5])}, "/points/4/0", "not a string", ""),
        ({"points": with_point(4, [True, 5])}, "/points/4/0", "not a boolean", ""),
        ({"points": with_point(3, [0.4, 0])}, "/points/3/1", "positive, not 0", ""),
        ({"points": with_point(3, [0.4, -2])}, "/points/3/1", "positive, not -2", ""),
        ({"points": with_point(3, [0.4, float("inf")])}, "/points/3/1", "not a finite", "Leave out"),
        ({"points": with_point(3, [0.4, float("nan")])}, "/points/3/1", "not a finite", ""),
        ({"points": with_point(3, [0.4, 10**400])}, "/points/3/1", "not a finite", ""),
        ({"points": with_point(3, [0.4, None])}, "/points/3/1", "not null", ""),
        ({"points": with_point(3, [0.2, 6])}, "/points/3/0", "Points 1 and 3 have the same s, 0.2", "once"),
        ({"points": POINTS, "bounds": []}, "/bounds", "a list, not an object", ""),
        ({"points": POINTS, "bounds": {"b": 0}}, "/bounds/b", "not a pair", "null"),
        ({"points": POINTS, "bounds": {"b": [0, 1, 2]}}, "/bounds/b", "not a pair", ""),
        ({"points": POINTS, "bounds": {"b": ["0", 1]}}, "/bounds/b/0", "not a string", ""),
        ({"points": POINTS, "bounds": {"k1": [5, 3]}}, "/bounds/k1", "5, lies above the upper, 3", "Swap"),
        ({"points": POINTS, "bounds": {"a": [None, 0]}}, "/bounds/a/1", "a is positive", ""),
        ({"points": POINTS, "bounds": {"s0": [0.6, 0.9]}}, "/bounds/s0", "outside the measured range", "meet"),
        ({"points": POINTS, "bounds": {"k3": [0, 1]}}, "/bounds/k3", "no field 'k3'", "did you mean 'k"),
        ({"points": POINTS, "bound": {}}, "/bound", "no field 'bound'", "did you mean 'bounds'?"),
        ({"points": POINTS, "a/b~c": 1}, "/a~1b~0c", "no field 'a/b~c'", "valid: bounds, dense, points"),
        ({"points": POINTS, "dense": 0}, "/dense", "positive", ""),
        ({"points": POINTS, "dense": "5"}, "/dense", "not a string", ""),
    ],
)
def test_each_fault_is_named_with_its_place(data: Any, pointer: str, detail: str, hint: str) -> None:
    with pytest.raises(HemostatError) as caught:
        parse_request(json.dumps(data))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.pointer == pointer
    assert detail in caught.value.detail
    assert hint in caught.value.hint


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
