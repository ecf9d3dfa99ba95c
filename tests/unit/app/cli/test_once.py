"""An option of one value that is given twice is refused in every command, and what may be repeated is not."""

from typer.core import TyperOption
from typer.main import get_command

from app.cli.main import app
from app.contracts.errors import ErrorCode
from tests.support.commands import refused


def commands(group, path=()):
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


def single(found):
    """Its options that take a value, and one alone."""
    return [one for one in found.params if isinstance(one, TyperOption) and not (one.multiple or one.is_flag)]


def test_the_second_of_two_values_is_not_taken_silently():
    looked_at = set()
    for path, found in commands(get_command(app)):
        for option in [one.opts[0] for one in single(found)][-1:]:
            looked_at.add(path[0])
            error = refused(" ".join(path), option, "1", option, "2")
            assert error.code is ErrorCode.INVALID_REQUEST
            assert error.detail == f"{option} is given twice, but takes one value: 1 and 2"
    assert looked_at >= {"compare", "threshold", "deploy", "flips", "jobs", "models", "profiles"}


def test_the_short_name_and_every_value_count():
    error = refused("compare -r a --reference=b -rc")
    assert error.detail == "--reference is given 3 times, but takes one value: a, b and c"


def test_what_may_be_repeated_and_flags_pass(sent):
    line = "sweep -r a --recipe prune.wanda --knob sparsity=0.1,0.2 --metadata x=1 --metadata y=2 --json --json"
    assert sent(line)["metadata"] == {"x": "1", "y": "2"}


def test_a_key_has_one_value():
    for given, said in (
        ("--threshold severe=0.3 --threshold severe=0.4", "--threshold severe is given twice: 0.3 and 0.4"),
        ("--metadata run=1 --metadata other=1 --metadata run=2", "--metadata run is given twice: 1 and 2"),
    ):
        assert refused(f"compare -r a {given}").detail == said
