"""What holds for every report in a terminal."""

from functools import cache

import pytest
from rich.cells import cell_len

from app.kinds.compare.report import CompareReport
from app.reports.blocks import Cell, Column, Gauge, Table
from app.reports.terminal import aligned, drawn, fitted
from tests.support.reports import variants
from tests.support.terminal import printed
from tests.support.variants import VARIANTS as KINDS

VARIANTS = variants()
DETAILED = ("severe", "hostile", "nothing-finite")
# Of 40: the command adds the path of the page and the outcome of a rule, or files and what to do with them.
MOST_LINES = {"mitigate": 32, "attribute": 40, "trajectory": 40, "surface": 40, "sweep": 41}


@cache
def shown(name: str, width: int, *, details: bool = False) -> str:
    return printed(VARIANTS[name], width, details=details)


def of_report(lines: list[str]) -> list[str]:
    """Lines but those of commands, which a terminal breaks where it must so that they are copied whole."""
    return [line for line in lines if not line.startswith(("  hemostat", "hemostat", "  --", '  "'))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_short_output_fits_its_lines_and_no_line_is_wider_than_the_terminal(kind: str) -> None:
    for name, report in KINDS[kind]().items():
        for width in (80, 120):
            lines = printed(report, width).splitlines()
            assert len(lines) <= MOST_LINES.get(kind, 38) or name == "hostile", name
            assert max(map(cell_len, of_report(lines))) <= width, name


def test_no_line_of_the_details_is_wider_than_the_terminal() -> None:
    for name in DETAILED:
        for width in (80, 120):
            assert max(map(cell_len, of_report(shown(name, width, details=True).splitlines()))) <= width, name


def test_details_hold_every_number_of_the_short_output() -> None:
    for name in DETAILED:
        short = shown(name, 120).splitlines()[:-1]
        details = shown(name, 120, details=True).splitlines()
        numbers = [line.strip() for line in short if line[:1].isalnum() and "Not tested" not in line]
        assert set(numbers[:12]) <= {line.strip() for line in details}


def test_nothing_is_said_by_colour_alone_and_no_name_commands_the_terminal() -> None:
    for name in DETAILED:
        text = shown(name, 120, details=True)
        assert not set(text) & set("\x1b\x07\x00\u202e"), name
        assert VARIANTS[name]["severity"].upper() in text
    assert "<b>not bold</b> ⟨U+001B⟩[1m⟨U+202E⟩" in shown("hostile", 120)


def test_no_command_to_repeat_a_job_commands_the_terminal() -> None:
    request = {"kind": "no such", "reference": {"model": "a\x1b[1m"}, "candidate": {"model": "b\u202e"}}
    text = printed(VARIANTS["severe"] | {"request": request}, 120, details=True)
    assert not set(text) & set("\x1b\u202e")
    assert "hemostat compare" in text and "a⟨U+001B⟩[1m" in text


def test_markup_in_names_is_text() -> None:
    text = printed(
        VARIANTS["severe"] | {"warnings": [{"code": "loud", "text": "[bold red]loud[/bold red] [link=x]"}]}, 120
    )
    assert "[bold red]loud[/bold red] [link=x]" in text


def test_an_ascii_terminal_gets_ascii() -> None:
    assert printed(VARIANTS["hostile"], 80, "ascii", details=True).isascii()
    assert "x10-6" in printed(VARIANTS["tiny"], 80, "ascii")


def test_decimal_points_are_below_each_other() -> None:
    numbers = aligned(["0.308", "1,204", "−89.07", "–", "1.60×10⁻⁶"])
    assert len({len(number) for number in numbers}) == 1
    assert {number.index(".") for number in numbers if "." in number} == {5}
    assert [number.strip() for number in numbers] == ["0.308", "1,204", "−89.07", "–", "1.60×10⁻⁶"]


def table(*columns: Column) -> Table:
    return Table("T", columns, (tuple(Cell("1234567", "12345") for _ in columns),))


def test_columns_and_notes_of_low_priority_leave_a_narrow_terminal_first() -> None:
    found = table(Column("name", "name"), Column("kept"), Column("chart", "chart"), Column("b", priority=1),
                  Column("c", priority=2))  # fmt: skip

    def labels(width: int) -> list[tuple[str, bool]]:
        return [(one.label, any(one.notes)) for one in fitted(found, width, str)]

    whole = [("name", True), ("kept", True), ("b", True), ("c", True)]
    assert labels(58) == whole
    assert labels(57) == [*whole[:3], ("c", False)]
    assert labels(51) == whole[:3]
    assert labels(42) == [*whole[:2], ("b", False)]
    assert labels(28) == whole[:2]
    assert labels(27) == [("name", False), ("kept", True)]
    assert labels(5) == [("name", False), ("kept", False)]


def test_the_gauge_puts_the_excess_between_its_limits() -> None:
    for width in (60, 78, 98):
        names, axis, labels = _drawn("severe", width)
        assert len(names) == len(axis) == len(labels) == width
        crossings = [place for place, sign in enumerate(axis) if sign == "┼"]
        assert len(crossings) == 4
        assert crossings[2] < axis.index("├") < axis.index("●") < axis.index("┤") < crossings[3]
        assert "SEVERE" in names
        assert "mild" in names
    assert _drawn("tiny", 78)[1].startswith("◂")


def _drawn(name: str, width: int) -> tuple[str, str, str]:
    decision = CompareReport.model_validate(VARIANTS[name]).decision
    excess, limits = decision.excess_kl, decision.thresholds
    assert excess.mean is not None
    gauge = Gauge(excess.mean, excess.ci, (limits.mild, limits.moderate, limits.severe, limits.collapse))
    return drawn(gauge, (VARIANTS[name]["severity"],), width)
