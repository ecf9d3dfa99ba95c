import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.cli.output import Exit, Lines, Phases, busy, fail, out
from app.commands.places import words_of_kind
from app.contracts.errors import ErrorCode, HemostatError
from app.error_guide import GUIDE
from app.kinds.registry import KINDS
from tests.support.commands import refused, run


def test_where_there_is_no_terminal_a_phase_is_said_once_in_words():
    told = io.StringIO()
    lines = Lines(Console(file=told, width=80))
    for done in (0, 1):
        lines.update("modify: blocks", done, 2)
    lines.update("of a newer worker", 0, 0)
    lines.update("reference", 0, 1)
    assert told.getvalue().splitlines() == [
        "modifying: processing the blocks …",
        "of a newer worker …",
        "scoring the reference (1 window) …",
    ]


def test_a_phase_of_unknown_length_keeps_nothing_of_the_one_before():
    progress = Progress(console=Console(file=io.StringIO()))
    display = Phases(progress)
    display.update("modify", 272, 272)
    display.update("engine", 0, 0)
    (task,) = progress.tasks
    assert (task.description, task.completed, task.total) == ("starting the engine", 0, None)
    display.update("reference", 3, 8)
    (task,) = progress.tasks
    assert (task.description, task.completed, task.total) == ("scoring the reference", 3, 8)


def test_what_takes_a_while_is_said_where_there_is_no_terminal(capsys):
    with busy("building [it] …"):
        assert capsys.readouterr().err == "building [it] …\n"


def test_lines_that_go_to_a_file_end_with_what_they_say(capsys):
    table = Table("name", "what", box=None)
    table.add_row("a", "long enough to fill up")
    table.add_row("b  b", "")
    out.print(table)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["name", "what"],
        ["a", "long", "enough", "to", "fill", "up"],
        ["b", "b"],
    ]
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("pointer", "place"),
    [
        ("/candidate/recipe/0/bits", "step 1 of --recipe, bits"),
        ("/candidate/recipe/1", "step 2 of --recipe"),
        ("/reference/model", "REFERENCE"),
        ("/text/documents/3/text", "--text"),
        ("/sampling/top_p", "sampling.top_p"),
    ],
)
def test_an_error_names_its_place_as_the_command_line_writes_it(pointer, place, capsys):
    detail = "wrong. Also at /window: small."
    error = HemostatError(ErrorCode.INVALID_REQUEST, detail, hint="set `self_check` or `verify`", pointer=pointer)
    with pytest.raises(SystemExit):
        fail(error, as_json=False, words=words_of_kind(KINDS["compare"].request))
    said = capsys.readouterr().err
    assert f"at {place}\n" in said
    assert "Also at --window: small" in said
    assert "set --self-check or `verify`" in said


@pytest.mark.parametrize("line", ["compare a --itms 5", "diff", "nosuch", "compare a --fail-on bad"])
def test_wrong_usage_is_reported_as_other_errors_are(line):
    done = run(line)
    assert done.exit_code == Exit.REFUSED
    assert done.stderr.startswith("error: ")
    assert "--help` shows" in done.stderr
    assert run(done.stderr.split("explained by: hemostat ")[1]).exit_code == Exit.OK


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.rules])
def test_a_kind_without_rules_names_the_kinds_that_have_some(kind):
    done = run(f"{kind} a --fail-on severe")
    assert done.exit_code == Exit.REFUSED
    hint = done.stderr.split("what to do: ")[1]
    assert [name for name in KINDS if f"{name}," in hint or f"{name};" in hint] == ["compare", "tasks"]


def test_an_error_of_a_command_names_the_options_of_that_command():
    line = ["mitigate", "a", "--recipe", "quantize.rtn:bits=4", "--set", 'budget={"bytes": NaN}']
    done = subprocess.run([sys.executable, "-m", "app.cli.main", *line], capture_output=True, text=True, check=False)
    assert (done.returncode, "at --bytes" in done.stderr) == (Exit.REFUSED, True), done.stderr


def test_every_code_of_an_error_is_explained_without_a_service():
    listed = run("errors").stdout
    for code in ErrorCode:
        assert code in listed
        assert GUIDE[code] in " ".join(run(f"errors {code}").stdout.split())
    assert "queue_full" in refused("errors queue_fill").hint
