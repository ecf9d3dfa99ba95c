"""An option of one value that is given twice is refused in every command, and what may be repeated is not."""

import shlex

import pytest
from typer.core import TyperOption
from typer.main import get_command
from typer.testing import CliRunner

from app.cli import submitting as command
from app.cli.main import app
from app.contracts.errors import ErrorCode, HemostatError


def commands(group, path=()):
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


def single(found):
    """Its options that take a value, and one alone."""
    return [one for one in found.params if isinstance(one, TyperOption) and not (one.multiple or one.is_flag)]


EVERY = [
    pytest.param(path, options[-1].opts[0], id=" ".join(path))
    for path, found in commands(get_command(app))
    if (options := single(found))
]


def test_commands_of_every_group_are_looked_at():
    groups = {"compare", "threshold", "deploy", "flips", "jobs", "models", "profiles"}
    assert {param.values[0][0] for param in EVERY} >= groups


@pytest.mark.parametrize(("path", "option"), EVERY)
def test_the_second_of_two_values_is_not_taken_silently(path, option):
    done = CliRunner().invoke(app, [*path, option, "1", option, "2"])
    assert isinstance(done.exception, HemostatError), done.output
    assert done.exception.code is ErrorCode.INVALID_REQUEST
    assert done.exception.detail == f"{option} is given twice, and takes one value: 1 and 2"


def test_the_short_name_and_every_value_count():
    done = CliRunner().invoke(app, shlex.split("compare -r a --reference=b -rc"))
    assert done.exception.detail == "--reference is given 3 times, and takes one value: a, b and c"
    assert done.exception.hint == "give --reference once"


def test_what_may_be_repeated_and_flags_pass(monkeypatch):
    sent = []
    monkeypatch.setattr(command, "measure", lambda request, *_, **__: sent.append(request))
    line = "sweep -r a --recipe prune.wanda --knob sparsity=0.1,0.2 --metadata x=1 --metadata y=2 --json --json"
    done = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert sent[0]["metadata"] == {"x": "1", "y": "2"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--threshold severe=0.3 --threshold severe=0.4", "--threshold severe is given twice: 0.3 and 0.4"),
        ("--metadata run=1 --metadata other=1 --metadata run=2", "--metadata run is given twice: 1 and 2"),
    ],
)
def test_a_key_has_one_value(given, said):
    done = CliRunner().invoke(app, shlex.split(f"compare -r a {given}"))
    assert isinstance(done.exception, HemostatError), done.output
    assert done.exception.detail == said
