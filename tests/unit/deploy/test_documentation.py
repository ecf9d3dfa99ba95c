"""One test of all pages, and tests that each check finds what it is for."""

from pathlib import Path

import pytest

from deploy import documentation
from deploy.documentation import Page

WRONG = {
    "length": "word " * 1001,
    "sentences": "A sentence " + "of far too many words " * 7 + "ends here.",
    "phrases": "The report tells how much it loses.",
    "terms": "The drift threshold is low.",
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
    (tmp_path / "Makefile").write_text("demo: setup\n", encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/README.md").write_text("[Another page](../other.md)", encoding="utf-8")
    (tmp_path / "code.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "page.md").write_text(WRONG[check.__name__], encoding="utf-8")
    assert list(check(Page("page.md")))


@pytest.mark.parametrize(
    "line",
    ["no-such", "deploy create", "jobs no-such", "compare -r a --recipe prune.wanda:sparsity=2"],
)
def test_a_command_that_hemostat_refuses_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(f"```\nhemostat {line}\n```", encoding="utf-8")
    assert list(documentation.commands(Page("page.md")))
