import re
from pathlib import Path

import pytest
from rich.table import Table

from app.cli.output import busy, out
from app.web.phases import PHASES

WORKERS = Path(__file__).resolve().parents[4] / "workers"


def test_every_phase_that_a_job_reports_has_words() -> None:
    reported = {
        phase
        for file in WORKERS.rglob("*.py")
        for phase in re.findall(r'context\.progress\(\s*"(\w+)"', file.read_text(encoding="utf-8"))
    }
    assert {"text", "modify", "fit", "choose", "test", "report"} <= reported
    assert reported <= set(PHASES)


def test_what_takes_a_while_is_said_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with busy("building [it] …"):
        assert capsys.readouterr().err == "building [it] …\n"


def test_lines_that_go_to_a_file_end_with_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
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
