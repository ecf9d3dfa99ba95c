"""Tables and numbers of pages, from committed ones: `python -m tests.bench.pages`, in `make docs`, writes them.

A page holds a part between `<!-- made: NAME -->` and `<!-- end -->`: a table on lines of its own, or a number in a
sentence. What is outside is written by hand.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.bench import (
    blocks_page,
    decoders_page,
    flips_page,
    flips_real,
    intervals_page,
    mitigation_page,
    numbers,
    online_page,
    serve_page,
    speed_page,
    sweep_page,
    tasks_page,
    threshold_page,
)
from tests.bench.flips_runs import read as read_flips
from tests.bench.rows import read

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "blocks": lambda: blocks_page.page(read(blocks_page.RESULTS)),
    "calibrators": lambda: blocks_page.jobs(read(blocks_page.JOBS)),
    "decoders": lambda: decoders_page.page(read(decoders_page.RESULTS)),
    "flips": lambda: flips_page.section(read_flips()),
    "flips-worlds": lambda: flips_page.worlds(read(flips_real.RESULTS)),
    "serve": lambda: serve_page.page(read(serve_page.RESULTS)),
    "tasks": lambda: tasks_page.section(read(tasks_page.RESULTS)),
    **speed_page.PARTS,
    **sweep_page.PARTS,
    **online_page.PARTS,
    **threshold_page.PARTS,
    **intervals_page.PARTS,
    **numbers.PARTS,
}
PART: Final = re.compile(r"(<!-- made: ([\w-]+) -->)(\n?).*?(<!-- end -->)", re.DOTALL)


def pages() -> dict[Path, str]:
    """Each page that has a made part -> its text."""
    files = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    found = {file: file.read_text(encoding="utf-8") for file in files}
    texts = {file: made(text) for file, text in found.items() if PART.search(text)}
    return texts | {mitigation_page.PAGE: mitigation_page.page(mitigation_page.read())}


def made(text: str) -> str:
    """A page with its made parts. KeyError for an unknown part."""
    return PART.sub(lambda part: f"{part[1]}{part[3] * 2}{PARTS[part[2]]()}{part[3] * 2}{part[4]}", text)


def main() -> None:
    """Writes the pages."""
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
