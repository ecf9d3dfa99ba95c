import io

import pytest
from rich.console import Console

from app.contracts.errors import HemostatError
from app.web.report import render
from app.web.terminal import render_terminal
from tests.support.html import tree
from tests.support.reports import variants

VARIANTS = variants()


def printed(report, width=80, encoding="utf-8"):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    render_terminal(report, Console(file=stream, width=width, no_color=True, force_terminal=False))
    stream.flush()
    return buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", VARIANTS)
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(name, width):
    text = printed(VARIANTS[name], width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    kl = VARIANTS[name]["divergence"]["kl"]
    if name == "severe":
        low, high = kl["ci"]
        assert f"{kl['mean']:.3f}" in text
        assert f"[{low:.3f}, {high:.3f}]" in text


def test_the_verdict_is_said_without_colour():
    text = printed(VARIANTS["severe"])
    assert "SEVERE  step 4 of 5, conclusive" in text
    assert "\x1b" not in text


def test_an_inconclusive_verdict_says_what_would_decide():
    text = printed(VARIANTS["inconclusive"], 120)
    assert "MILD OR MODERATE  step 2 or 3 of 5, inconclusive" in text
    assert "scored tokens would decide" in text


@pytest.mark.parametrize("name", VARIANTS)
def test_the_time_of_measuring_is_that_of_the_page(name):
    caption = next(tree(render(VARIANTS[name])).all("table", class_="phases")).one("caption").text
    told = next(line for line in printed(VARIANTS[name], 120).splitlines() if "measuring took" in line)
    assert caption == f"Time, {told.split('measuring took')[1].strip()} in all"


def test_where_no_phase_was_timed_it_is_from_start_to_end():
    source = VARIANTS["severe"]["provenance"] | {"seconds": {}, "started_at": 1000.0, "finished_at": 1100.0}
    assert "measuring took  1 min 40 s" in printed(VARIANTS["severe"] | {"provenance": source}, 120)


def test_wide_terminals_get_more_columns():
    assert "Median" in printed(VARIANTS["severe"], 120)
    assert "Median" not in printed(VARIANTS["severe"], 80)


def test_warnings_and_values_that_are_not_finite_are_said():
    assert "Warning: 37 positions gave NaN" in printed(VARIANTS["collapse"], 120)
    assert "Warning: Few documents" in printed(VARIANTS["mild"], 120)


def test_a_terminal_is_never_commanded_by_names():
    text = printed(VARIANTS["hostile"], 120)
    assert not set(text) & set("\x1b\x07\x00\u202e")
    assert "<b>not bold</b> ⟨U+001B⟩[1m⟨U+202E⟩" in text


def test_markup_in_names_is_text():
    report = VARIANTS["severe"]
    text = printed(report | {"warnings": ["[bold red]loud[/bold red] [link=x]"]}, 120)
    assert "[bold red]loud[/bold red] [link=x]" in text


@pytest.mark.parametrize("name", ["severe", "tiny", "hostile", "nothing-finite"])
def test_an_ascii_terminal_gets_ascii(name):
    text = printed(VARIANTS[name], 80, "ascii")
    assert text.isascii()
    if name == "tiny":
        assert "x10-6" in text


def test_what_is_not_a_report_is_refused():
    with pytest.raises(HemostatError):
        printed({"schema": "other"})


def of_one_document(block):
    """A part of a text as it is where a single document holds it."""
    return block | {"documents": 1, "kl": block["kl"] | {"clusters": "windows"}}


def assert_stands_apart(lines, note):
    """A line beneath a table: the heading of what follows does not stick to it, and no hole opens."""
    place = lines.index(note)
    assert (lines[place + 1], lines[place + 2] == "") == ("", False)


def test_a_domain_whose_intervals_are_over_windows_is_marked_as_the_page_marks_it():
    report = VARIANTS["severe"]
    name, other = list(report["domains"])[:2]
    block = report["domains"][name]
    divergence = block["divergence"] | {"kl": block["divergence"]["kl"] | {"clusters": "windows"}}
    few = report | {"domains": report["domains"] | {name: block | {"documents": 1, "divergence": divergence}}}
    for width in (80, 120):
        lines = [line.strip() for line in printed(few, width).splitlines()]
        assert f"* intervals over windows: {name} 1 document" in lines
        assert_stands_apart(lines, f"* intervals over windows: {name} 1 document")
        assert any(line.startswith(f"{name} * ") for line in lines)
        assert any(line.startswith(f"{other}  ") for line in lines)
    assert "intervals over windows" in render(few)
    assert " * " not in printed(report, 120)
    assert "over windows" not in printed(report, 120)


def test_a_kind_of_token_whose_intervals_are_over_windows_is_marked():
    report = VARIANTS["severe"]
    found = report["token_classes"]
    first = found["classes"][0]
    text = printed(
        report | {"token_classes": found | {"classes": [of_one_document(first), *found["classes"][1:]]}}, 120
    )
    lines = [line.strip() for line in text.splitlines()]
    assert_stands_apart(lines, f"* intervals over windows: {first['title']} 1 document")
    assert f"{first['title']} * " in text


def test_one_document_is_told_in_the_singular():
    assert "243 scored tokens, 1 document, windows of 512" in printed(variants()["single"], 80)


def test_a_perplexity_without_an_interval_says_where_there_is_one():
    name = "severe"
    rows = [line.split() for line in printed(VARIANTS[name], 120).splitlines() if "Perplexity of" in line]
    assert [row[4:7] for row in rows] == [["see", "the", "ratio"]] * 2
    page = [row.text.split() for row in tree(render(VARIANTS[name])).all("tr")]
    told = [row[-3:] for row in page if row[:2] == ["Perplexity", "of"] and len(row) < 15]
    assert told == [["see", "the", "ratio"]] * 2
