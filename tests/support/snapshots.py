"""What renderers show, compared with files. `pytest --update-snapshots` writes them anew: read the diff."""

import re
from collections.abc import Callable

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write the files of snapshots anew")


@pytest.fixture
def snapshot(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with `snapshots/NAME` beside the test."""

    def compare(name: str, text: str) -> None:
        path = request.path.parent / "snapshots" / name
        text = re.sub(r"[ \n]*\n", "\n", text).strip() + "\n" if name.endswith(".html") else plain(text)
        if request.config.getoption("--update-snapshots"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no snapshot {path.name}: run with --update-snapshots and read it"
        assert text == path.read_text(encoding="utf-8"), "if this is meant: --update-snapshots"

    return compare


def plain(text: str) -> str:
    """A text without blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n")) + "\n"


def body(page: str) -> str:
    """A page without its style; of each picture the title alone: pictures have tests of their own."""
    kept = page[page.index("<title>") : page.index("<style>")] + page[page.index("<header>") :]
    return re.sub(r"<svg.*?<title>(.*?)</title>.*?</svg>", r"<svg>\1</svg>", kept, flags=re.DOTALL)
