"""One test of all pages, and tests that each check finds what it is for."""

from pathlib import Path

import pytest

from deploy import documentation, documented_commands
from deploy.documentation import Page

WRONG = {
    "length": "word " * 1001,
    "sentences": "A sentence " + "of far too many words " * 7 + "ends here.",
    "phrases": "The report tells how much it loses.",
    "terms": "The drift threshold is low.",
    "glossary": "| word | meaning |\n| **knee** | Where a curve breaks. |",
    "measured": "The demo model loses 0.39 nats per token.",
    "targets": "```\nmake nothing-known\n```",
    "links": "See [a page](nowhere.md).",
    "listed": "See the [index](docs/README.md).",
    "quotes": "```python quote=code.py\nx = 2\n```\n",
    "commands": "```\nhemostat compare -r a --recipe quantize.rtn:bits=99\n```",
    "examples": '```json\n{"kind": "compare", "reference": {"model": "a"}, "windows": 3}\n```',
    "names": "Set HEMOSTAT_NO_SUCH_SETTING, then read hemostat_no_such_metric.",
}


def test_nothing_is_wrong_with_the_pages() -> None:
    assert documentation.report(documentation.faults()) == ""


@pytest.mark.parametrize("check", documentation.CHECKS, ids=lambda check: check.__name__)
def test_a_check_finds_what_is_wrong(
    check: documentation.Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documentation, "ROOT", tmp_path)
    monkeypatch.setattr(documentation, "GLOSSARY", "page.md")
    (tmp_path / "Makefile").write_text("demo: setup\n", encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/README.md").write_text("[Another page](../other.md)", encoding="utf-8")
    (tmp_path / "code.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "page.md").write_text(WRONG[check.__name__], encoding="utf-8")
    assert list(check(Page("page.md")))


@pytest.mark.parametrize(
    "line",
    [
        "no-such",
        "deploy create",
        "jobs no-such",
        "compare -r a --recipe prune.wanda:sparsity=2",
        "compare a --recipe quantize.rtn:bits",
    ],
)
def test_a_command_that_hemostat_refuses_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(f"```\nhemostat {line}\n```", encoding="utf-8")
    assert list(documentation.commands(Page("page.md")))


@pytest.mark.parametrize(
    "line",
    [
        "no-such",
        "deploy no-such",
        "deploy show NAME --no-such",
        "deploy create … --no-such",
        "models add ALIAS",
        "compare -r a --recipe prune.wanda:sparsity=2",
        "compare -r a --recipe quantize.rtn:bits",
    ],
)
def test_inline_code_that_hemostat_refuses_is_found(line: str) -> None:
    (written,) = documented_commands.inline(f"Run `hemostat {line}` first.")
    assert list(documented_commands.refused(written, whole=False))


@pytest.mark.parametrize(
    "line",
    [
        "keys",
        "diff",
        "diff --json",
        "COMMAND --help",
        r"models add ALIAS FOLDER\|HUB_ID",
        "deploy create … --version cal-…",
    ],
)
def test_inline_code_may_be_a_name_or_leave_values_out(line: str) -> None:
    (written,) = documented_commands.inline(f"Run `hemostat {line}` first.")
    assert not list(documented_commands.refused(written, whole=False))


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        ("compare a b", True),
        ("sweep a --recipe prune.wanda --knob sparsity=0.1,0.2 > log", True),
        ("compare", False),
        ("compare REFERENCE [CANDIDATE]", False),
        ("compare a …", False),
        ("models list", False),
    ],
)
def test_a_line_asks_for_a_job_if_nothing_is_to_be_filled_in(line: str, asks: bool) -> None:
    assert documented_commands.submits(line) is asks


def test_the_readme_has_fewer_words_than_other_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "ROOT", tmp_path)
    for name in ("README.md", "page.md"):
        (tmp_path / name).write_text("word\n\tword " * 450 + "word", encoding="utf-8")  # 901 of them
    assert [list(documentation.length(Page(name))) for name in ("README.md", "page.md")] == [
        ["901 words, more than 900"],
        [],
    ]


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "a", "messages": [{"role": "user", "content": "b"}], "hemostat": {"shadw": true}}',
        '{"model": "a", "messages": [{"role": "nobody", "content": "b"}]}',
        '{"points": [[0.1, 5], [0.2, -6], [0.3, 7], [0.4, 8], [0.5, 9], [0.6, 10]]}',
        '{"something": 1}',
    ],
)
def test_a_body_of_another_model_is_checked_by_it(body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(f"```\ncurl -d '{body}'\n```", encoding="utf-8")
    assert list(documentation.examples(Page("page.md")))


@pytest.mark.parametrize(
    ("path", "text", "typed"),
    [
        ("docs/results/page.md", "The job took 40 s.", True),
        ("docs/results/page.md", "Brackets are 95 % intervals.", False),
        ("docs/results/page.md", "<!-- made: serve -->\n\nIt took 40 s.\n\n<!-- end -->", False),
        ("docs/page.md", "A request waits at most 40 s.", False),
        ("docs/page.md", "[Simulated](page.md) delays are 3 times as long.", True),
        ("docs/page.md", "The demo model loses <!-- made: loss-4-bits -->0.37<!-- end --> nats.", False),
    ],
)
def test_a_measured_number_must_not_be_typed(
    path: str, text: str, typed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documentation, "ROOT", tmp_path)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text, encoding="utf-8")
    assert bool(list(documentation.measured(Page(path)))) is typed


def test_what_no_page_names_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "pages", tuple)
    assert {"HEMOSTAT_HOME", "hemostat_jobs", "job_not_found"} <= set(documentation.unnamed())
