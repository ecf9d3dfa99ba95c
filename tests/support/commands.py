"""The command line, run in this process."""

import shlex
from typing import Any

from typer.testing import CliRunner, Result

from app.cli.main import app
from app.contracts.errors import HemostatError


def run(line: str, *more: str, **options: Any) -> Result:
    """What a line of a shell does, without `hemostat`; `more` are arguments as they are."""
    return CliRunner().invoke(app, [*shlex.split(line), *more], **options)


def refused(line: str, *more: str) -> HemostatError:
    """The error that a line ends with."""
    error = run(line, *more).exception
    assert isinstance(error, HemostatError), error
    return error
