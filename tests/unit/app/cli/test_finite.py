"""Numbers that JSON has not are refused by the option's or the field's name, whether a service runs or not."""

import pytest

from app.cli.client import Client
from app.commands.finite import require_finite, require_json
from app.contracts.errors import ErrorCode, HemostatError
from tests.support.commands import refused

NAN, INFINITY = float("nan"), float("inf")


def test_the_first_field_is_named():
    for body, pointer, name in (
        ({"margin": NAN}, "/margin", "NaN"),
        ({"a": [1.0, {"b/c~": -INFINITY}], "z": NAN}, "/a/1/b~1c~0", "-Infinity"),
        ({"pairs": ((0.5, INFINITY),)}, "/pairs/0/1", "Infinity"),
    ):
        with pytest.raises(HemostatError, match=f": {name} ") as caught:
            require_json(body)
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_JSON, pointer)
        with pytest.raises(HemostatError, match=f"--option: {name} ") as caught:
            require_finite(body, "--option")
        assert caught.value.code is ErrorCode.INVALID_REQUEST


OPTIONS = [
    ("sweep -r a --recipe prune.wanda --knob sparsity=0.1,NaN", "--knob sparsity=0.1,NaN: NaN"),
    ("sweep -r a --recipe prune.wanda --knob sparsity=0.1..Infinity:3", "--knob sparsity=0.1..Infinity:3: Infinity"),
    ("sweep -r a --recipe prune.wanda --knob sparsity=0.1,1e999", "--knob sparsity=0.1,1e999: Infinity"),
    ("sweep -r a --recipe prune.wanda --knob sparsity=0.1,0.2 --bound b=0..inf", "--bound b=inf: Infinity"),
    (
        "surface -r a --recipe prune.wanda --knob sparsity=0.1,0.2 --knob seed=1,2 --contour kl=nan",
        "--contour kl=nan: NaN",
    ),
    ("trajectory -r a --decoder top_p:p=NaN", "--decoder 'top_p:p=NaN': NaN"),
    ("trajectory -r a --shaping top_p:p=-Infinity", "--shaping 'top_p:p=-Infinity': -Infinity"),
    ("compare -r a --threshold severe=nan", "--threshold severe=nan: NaN"),
    ("compare -r a --recipe prune.wanda:sparsity=NaN", "recipe step 'prune.wanda:sparsity=NaN': NaN"),
    ("deploy create d -m a --recipe prune.wanda:sparsity=NaN", "recipe step 'prune.wanda:sparsity=NaN': NaN"),
    ("compare -r a --recipe prune.wanda:sparsity=nan", "recipe step 'prune.wanda:sparsity=nan': NaN"),
    ("compare -r a --recipe prune.wanda:sparsity=-inf", "recipe step 'prune.wanda:sparsity=-inf': -Infinity"),
    ("sweep -r a --recipe prune.wanda --knob sparsity=0.1,nan", "--knob sparsity=0.1,nan: NaN"),
    ("deploy set d --drift-threshold nan", "--drift-threshold: NaN"),
    ("deploy set d --sampling top_p=inf", "--sampling top_p=inf: Infinity"),
]
NUMBERS = [
    ("tasks -r a", "--margin"),
    ("surface -r a --recipe prune.wanda --knob sparsity=0.1,0.2 --knob seed=1,2", "--margin"),
    ("mitigate -r a", "--bits"),
    ("mitigate -r a", "--added-latency"),
    ("attribute -r a", "--budget"),
    ("calibrate -r a", "--tolerance"),
    *[("deploy create d -m a", f"--{name}") for name in ("shadow-rate", "shadow-tokens", "drift-threshold", "alpha")],
    *[("deploy set d", f"--{name}") for name in ("shadow-rate", "shadow-tokens", "alpha")],
]


def test_an_option_that_holds_one_is_named(recorder):
    for line, said in OPTIONS:
        error = refused(f"{line} --url {recorder.url}")
        assert error.detail == f"{said} is not a finite number"
        assert error.code is ErrorCode.INVALID_REQUEST
    assert recorder.asked == []


def test_an_option_that_is_one_is_named_with_and_without_a_service(recorder, monkeypatch, tmp_path):
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path))
    monkeypatch.setenv("HEMOSTAT_PORT", "1")  # nothing listens there
    for line, option in NUMBERS:
        for given, name, where in (("nan", "NaN", f"--url {recorder.url}"), ("-inf", "-Infinity", "")):
            error = refused(f"{line} {option} {given} {where}")
            assert error.detail == f"{option}: {name} is not a finite number"
            assert error.code is ErrorCode.INVALID_REQUEST
    assert recorder.asked == []


def test_a_field_of_any_request_is_named_before_it_is_sent(recorder):
    with Client(recorder.url) as client, pytest.raises(HemostatError) as caught:
        client.submit({"kind": "tasks", "margin": NAN})
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_JSON, "/margin")
    assert recorder.asked == []
