import json
import math

import pytest
from pydantic import ValidationError

from app.contracts.errors import ErrorCode
from app.contracts.job import job_error
from workers.process.messages import (
    MAX_LINE_BYTES,
    MAX_VALUES,
    Cancel,
    Done,
    Failed,
    FromChild,
    Logged,
    Observed,
    ProgressMade,
    Ready,
    Run,
    Shutdown,
    Stopped,
    ToChild,
    decode_from_child,
    decode_to_child,
    encode,
)


@pytest.mark.parametrize(
    "message",
    [
        Run(job="j", attempt=2, kind="compare", request={"text": {"documents": ["a\nb\u2028ü\x00"]}, "seed": 2**62}),
        Cancel(job="j", attempt=1),
        Shutdown(),
    ],
)
def test_what_the_parent_says_is_one_line_and_comes_back_whole(message: ToChild) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_to_child(line) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready(pid=4711),
        ProgressMade(job="j", attempt=1, phase="reference", done=3, total=0),
        Logged(job="j", attempt=1, message="two\nlines"),
        Observed(name="kl_nats", labels={"model": "m"}, values=(0.1, 1e-300)),
        Done(job="j", attempt=1, severity="mild", classes=("none", "mild"), answer="Worse", artifacts=("a.npz",)),
        Failed(job="j", attempt=1, error=job_error(ErrorCode.DISK_FULL, "x", "y"), spoiled=True),
        Stopped(job="j", attempt=1),
    ],
)
def test_what_the_child_says_is_one_line_and_comes_back_whole(message: FromChild) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode_from_child(line) == message


def test_samples_may_be_what_prometheus_allows() -> None:
    sent = Observed(name="perplexity_ratio", labels={}, values=(math.nan, math.inf, -math.inf))
    received = decode_from_child(encode(sent))
    assert isinstance(received, Observed)
    assert math.isnan(received.values[0])
    assert received.values[1:] == (math.inf, -math.inf)


def test_the_longest_samples_fit_in_a_line() -> None:
    message = Observed(name="kl_nats", labels={"model": "m" * 128}, values=(-1.7976931348623157e308,) * MAX_VALUES)
    assert len(encode(message)) < MAX_LINE_BYTES


@pytest.mark.parametrize(
    "line", [b"", b"{}\n", b"nonsense\n", b'{"type":"run"}\n', json.dumps({"type": "ready", "pid": 1, "x": 2}).encode()]
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_from_child(line)
