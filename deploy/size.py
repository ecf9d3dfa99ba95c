"""How large the project is, beside its budgets: `make size`. A budget that is passed is marked, and is no failure."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LONG: Final = 500  # lines of a module
SMALL: Final = 40  # lines below which a module with one importer belongs into it
# Pages that are made from code or from measurements, and those for contributors.
NO_USER_PAGES: Final = (
    "docs/reference/",
    "docs/contributors/",
    "docs/results/",
    "docs/recipes/measured.md",
    "docs/paper",
)


@dataclass(frozen=True)
class Row:
    """One figure; `budget` is the most that it may be."""

    name: str
    value: float
    budget: float | None = None


def modules(*folders: str) -> list[Path]:
    """Python files below these folders of the repository."""
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def lines(files: Iterable[Path]) -> int:
    """Lines of text."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def words(pages: Iterable[Path]) -> int:
    """Words of text."""
    return sum(len(page.read_text(encoding="utf-8").split()) for page in pages)


def statements(files: Iterable[Path]) -> int:
    """Statements of Python."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in files)
    return sum(isinstance(node, ast.stmt) for tree in trees for node in ast.walk(tree))


def imported(file: Path) -> set[str]:
    """Dotted names that a module imports, or may: of `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def small_with_one_importer(files: list[Path]) -> int:
    """Small modules that one other module alone imports."""
    importers = Counter(name for file in files for name in imported(file))
    small = [file for file in files if file.name != "__init__.py" and lines([file]) < SMALL]
    return sum(importers[dotted(file)] == 1 for file in small)


def dotted(file: Path) -> str:
    """The name that a module is imported by."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def naming(files: Iterable[Path], name: str) -> int:
    """Files that hold a name."""
    pattern = re.compile(rf"\b{name}\b")
    return sum(bool(pattern.search(file.read_text(encoding="utf-8"))) for file in files)


def rows() -> list[Row]:
    """Every figure."""
    product = modules("app", "hemostat", "workers")
    bench = ROOT / "tests" / "bench"
    tests = [file for file in modules("tests") if bench not in file.parents]
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    user = [page for page in pages if not page.relative_to(ROOT).as_posix().startswith(NO_USER_PAGES)]
    return [
        Row("lines of app and workers", lines(product), 92_000),
        Row("lines of tests, tests/bench left out", lines(tests), 72_000),
        Row("statements per 100 lines of app and workers", round(100 * statements(product) / lines(product), 1)),
        Row(f"modules over {LONG} lines", sum(lines([file]) > LONG for file in [*product, *tests]), 0),
        Row(f"modules under {SMALL} lines with one importer", small_with_one_importer(product), 0),
        Row("files of app and workers that name reverse_kl", naming(product, "reverse_kl"), 2),
        Row("words of documentation for users", words(user), 30_000),
        Row("words of documentation in all", words(pages)),
    ]


def main() -> None:
    """Entry point."""
    for row in rows():
        over = row.budget is not None and row.value > row.budget
        budget = "" if row.budget is None else f"  of {row.budget:,}"
        sys.stdout.write(f"{row.value:>10,}{budget:<12}{' over' if over else '     '}  {row.name}\n")


if __name__ == "__main__":
    main()
