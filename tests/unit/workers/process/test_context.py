import errno
import os
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from pydantic import BaseModel

from app.files import write_atomically
from app.settings import Settings
from workers.process import context as module
from workers.process.context import PROGRESS_INTERVAL_S, ChildContext
from workers.process.handler import JobCancelled
from workers.process.messages import MAX_VALUES, FromChild, Logged, Observed, ProgressMade


class Small(BaseModel):
    severity: str = "none"

    @property
    def decision(self) -> Self:
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        return (self.severity,)


class Line:
    """Where a context's messages go."""

    def __init__(self, home: Path, attempt: int = 1) -> None:
        self.sent: list[FromChild] = []
        self.stop = threading.Event()
        self.context = ChildContext(Settings(home=home), "job", attempt, send=self.sent.append, stop=self.stop)

    def progress(self) -> list[tuple[str, int, int]]:
        return [(sent.phase, sent.done, sent.total) for sent in self.sent if isinstance(sent, ProgressMade)]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_scratch_survives_attempts_and_output_does_not(tmp_path: Path) -> None:
    first = Line(tmp_path).context
    (first.scratch / "kept").touch()
    (first.output / "half").touch()
    second = Line(tmp_path, attempt=2).context
    assert second.scratch == first.scratch
    assert (second.scratch / "kept").exists()
    assert second.output != first.output
    again = Line(tmp_path).context
    assert list(again.output.iterdir()) == []


def test_a_helper_leaves_the_attempts_folder_alone(tmp_path: Path) -> None:
    own = Line(tmp_path).context
    (own.output / "half").touch()
    send: list[FromChild] = []
    helper = ChildContext(Settings(home=tmp_path), "job", 1, send=send.append, stop=threading.Event(), helping=True)
    assert helper.scratch == own.scratch
    assert helper.output != own.output and helper.output.is_dir()
    assert (own.output / "half").exists()


def test_progress_is_throttled_but_never_at_the_ends_of_a_phase(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_INTERVAL_S", 600.0)
    for step in range(1000):
        line.context.progress("reference", step, 999)
    line.context.progress("candidate", 0, 10)
    line.context.progress("candidate", 1, 10)
    assert line.progress() == [("reference", 0, 999), ("reference", 999, 999), ("candidate", 0, 10)]


def test_progress_goes_on_while_time_does(line: Line) -> None:
    line.context.progress("reference", 0, 10)
    time.sleep(1.25 * PROGRESS_INTERVAL_S)
    line.context.progress("reference", 1, 10)
    assert [done for _, done, _ in line.progress()] == [0, 1]


def test_a_stop_is_raised_where_the_handler_looks(line: Line) -> None:
    line.context.check_cancelled()
    line.stop.set()
    with pytest.raises(JobCancelled):
        line.context.check_cancelled()


def test_samples_are_gathered_by_series(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBSERVE_INTERVAL_S", 600.0)
    for value in range(10):
        line.context.observe("kl_nats", value, model="a")
        line.context.observe("kl_nats", value, model="b")
    assert line.sent == []
    line.context.flush()
    values = tuple(float(value) for value in range(10))
    assert line.sent == [Observed(name="kl_nats", labels={"model": model}, values=values) for model in ("a", "b")]
    line.context.flush()
    assert len(line.sent) == 2


def test_many_samples_come_in_parts_and_whole(line: Line) -> None:
    line.context.observe_many("kl_nats", range(2 * MAX_VALUES + 1))
    parts = [sent.values for sent in line.sent if isinstance(sent, Observed)]
    assert [len(part) for part in parts] == [MAX_VALUES, MAX_VALUES, 1]
    assert [value for part in parts for value in part] == list(range(2 * MAX_VALUES + 1))


def test_a_long_line_is_cut(line: Line) -> None:
    line.context.log("x" * 5000)
    (sent,) = line.sent
    assert isinstance(sent, Logged)
    assert len(sent.message) == 2000


def test_the_report_is_written_whole_and_is_no_artifact(line: Line) -> None:
    for name in ("tokens.parquet", ".hidden"):
        (line.context.output / name).touch()
    (line.context.output / "folder").mkdir()
    line.context.write_report(Small(severity="mild"))
    assert Small.model_validate_json((line.context.output / "report.json").read_text()).severity == "mild"
    assert line.context.artifacts() == ("tokens.parquet",)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # A disk that fills up between write and fsync cannot be had at will.
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]
