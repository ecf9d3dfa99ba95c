"""Which faults would the tests miss? Plants one fault at a time in a copy of the project and runs the tests that should
fail: `make mutants [SEED=n] [DRAWN=40]`. The faults that are written by hand are in `mutants.toml`; the others are
drawn by seed from operators on the modules named there. Writes tests/bench/mutants.csv and prints what survived.
"""

from __future__ import annotations

import argparse
import ast
import copy
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LIST: Final = Path(__file__).with_suffix(".toml")
RESULTS: Final = ROOT / "tests/bench/mutants.csv"
TIMEOUT_S: Final = 900
COPIED: Final = ("app", "hemostat", "workers", "deploy", "tests", "examples", "docs", "pyproject.toml", "README.md")
COMPARISONS: Final = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
ARITHMETIC: Final = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
EXTREMES: Final = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}


@dataclass(frozen=True)
class Fault:
    """One change of one file, and the tests that should fail with it."""

    name: str
    file: str
    changed: str
    tests: tuple[str, ...]


def faulty(node: ast.AST) -> ast.AST | None:
    """The node with a fault, or None if no operator fits it."""
    made = copy.deepcopy(node)
    match made:
        case ast.Compare(ops=[operator, *_]) if type(operator) in COMPARISONS:
            made.ops[0] = COMPARISONS[type(operator)]()
        case ast.BinOp(op=operator) if type(operator) in ARITHMETIC:
            made.op = ARITHMETIC[type(operator)]()
        case ast.BoolOp(op=operator):
            made.op = ast.Or() if isinstance(operator, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not()):
            return made.operand
        case ast.Call(func=ast.Name(id=name)) if name in EXTREMES:
            made.func = ast.Name(EXTREMES[name])
        case ast.Call(func=ast.Attribute(attr=name)) if name in EXTREMES:
            made.func.attr = EXTREMES[name]  # type: ignore[attr-defined] # the case says so
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            made.value = number + 1
        case _:
            return None
    return made


class _Replacing(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


def drawn(file: str, tests: tuple[str, ...], rng: random.Random) -> Fault:
    """One fault of a module, at a place that the generator draws."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    places = [(node, new) for node in ast.walk(tree) if (new := faulty(node)) is not None]
    old, new = rng.choice(places)
    before = ast.unparse(old)
    name = f"{file}:{getattr(old, 'lineno', 0)}: {before} -> {ast.unparse(new)}"
    return Fault(name, file, ast.unparse(ast.fix_missing_locations(_Replacing(old, new).visit(tree))), tests)


def by_hand() -> Iterator[Fault]:
    """The faults of the list. ValueError if a text is not in its file exactly once."""
    for one in tomllib.loads(LIST.read_text(encoding="utf-8"))["by_hand"]:
        text = (ROOT / one["file"]).read_text(encoding="utf-8")
        if text.count(one["old"]) != 1:
            raise ValueError(f"{one['name']}: {one['old']!r} is {text.count(one['old'])} times in {one['file']}")
        yield Fault(one["name"], one["file"], text.replace(one["old"], one["new"]), tuple(one["tests"]))


def by_seed(seed: int, count: int) -> Iterator[Fault]:
    """Faults of the listed modules, each module in turn, drawn by seed."""
    modules = tomllib.loads(LIST.read_text(encoding="utf-8"))["modules"]
    rng = random.Random(seed)  # noqa: S311 - which faults are planted is no secret
    order = list(modules)
    rng.shuffle(order)
    for number in range(count):
        file = order[number % len(order)]
        yield drawn(file, tuple(modules[file]), rng)


def caught(fault: Fault, project: Path) -> bool:
    """Whether a test fails while the fault is in the copy; the copy is whole again afterwards."""
    file = project / fault.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(fault.changed, encoding="utf-8")
    try:
        return failed(fault.tests, project)
    finally:
        file.write_text(whole, encoding="utf-8")


def failed(tests: tuple[str, ...], project: Path) -> bool:
    """Whether a test of these fails. What hangs has failed, too."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:rerunfailures", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HEMOSTAT_TEST_DURATIONS": str(project / "durations.json")}
    try:
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode not in (0, 1, 2):
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout.decode()[-2000:]}")
    return done.returncode != 0


def main() -> None:
    """Plants all of them, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drawn", type=int, default=40, help="how many faults are drawn")
    given = parser.parse_args()
    equivalent = tomllib.loads(LIST.read_text(encoding="utf-8"))["equivalent"]
    rows: list[tuple[str, str, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        copy_to(project)
        faults = [("by_hand", fault) for fault in by_hand()]
        faults += [("drawn", fault) for fault in by_seed(given.seed, given.drawn)]
        for tests in {fault.tests for _, fault in faults}:
            if failed(tests, project):
                raise SystemExit(f"without a fault these tests fail: {' '.join(tests)}")
        for kind, fault in faults:
            found = caught(fault, project)
            rows.append((kind, fault.name, int(found)))
            say(f"{'caught  ' if found else 'SURVIVED'} {fault.name}")
    write(rows, equivalent)
    counted = [found for _, name, found in rows if found or name not in equivalent]
    say(f"{sum(counted)} of {len(counted)} caught; {len(rows) - len(counted)} change nothing that can be seen")


def say(line: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def copy_to(project: Path) -> None:
    """What the tests need, and the demo model that they share."""
    project.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, project / name)
    if (ROOT / ".cache").exists():
        (project / ".cache").symlink_to(ROOT / ".cache")


def write(rows: list[tuple[str, str, int]], equivalent: dict[str, str]) -> None:
    """One row per fault: 1 if it was caught."""
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("bench", "case", "metric", "value", "unit"))
        for kind, name, found in rows:
            metric = "equivalent" if not found and name in equivalent else "caught"
            writer.writerow(("mutants", f"{kind}: {name}", metric, 1 if metric == "equivalent" else found, ""))


if __name__ == "__main__":
    main()
