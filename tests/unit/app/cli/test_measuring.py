"""What every command that submits a job says before it does."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import measuring
from app.cli.main import app
from app.cli.output import err

NOTE = "the model is compared with itself"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to standard error, of commands whose service answers every dry run."""

    class Service:
        def submit(self, request: dict[str, Any]) -> dict[str, Any]:
            return request

    @contextmanager
    def connected(*_: object) -> Iterator[Service]:
        yield Service()

    lines: list[str] = []
    monkeypatch.setattr(measuring, "connect_or_start", connected)
    monkeypatch.setattr(measuring, "print_estimate", lambda *_, **__: None)
    monkeypatch.setattr(err, "print", lambda line, **_: lines.append(line))
    return lines


@pytest.mark.parametrize("kind", ["compare", "attribute", "mitigate", "calibrate", "tasks", "trajectory"])
@pytest.mark.parametrize(
    ("options", "itself"),
    [
        ("-r a", True),
        ("-r a -c a", True),
        ("-r a -c b", False),
        ("-r a --recipe quantize.rtn:bits=4", False),
    ],
)
def test_a_model_that_is_compared_with_itself_is_told_of_whatever_the_kind(
    said: list[str], kind: str, options: str, itself: bool
) -> None:
    done = CliRunner().invoke(app, [kind, *shlex.split(options), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert [NOTE in line for line in said] == [True] * itself


def test_a_trajectory_with_another_candidate_compares_more_than_the_model_with_itself(said: list[str]) -> None:
    done = CliRunner().invoke(app, shlex.split("trajectory -r a --also a=quantize.rtn:bits=4 --dry-run"))
    assert done.exit_code == 0, done.output
    assert said == []
