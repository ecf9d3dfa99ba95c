"""Every phase that a job of any kind reports has words. Phases are read from the source of what its handler imports."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app.kinds.attribute import METRICS
from app.kinds.registry import KINDS
from app.web.phases import COMMON

ROOT = Path(__file__).resolve().parents[4]
MODELS = ("reference", "candidate")
# Rooms whose phases reach the job by another name, which a formatted phase or a phase of the caller gives.
RENAMED = ("workers/surgery", "workers/mitigation", "workers/calibration/fitting")
# What the steps of a recipe report while the weights are gone through: "modify" itself.
WEIGHTS = {"surgery", "thresholds", "write"}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Path]:
    found = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in (ROOT / "workers").rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in found.items()}


@cache
def imported(file: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names & modules().keys())


def reached(kind: str) -> set[Path]:
    """The modules of the workers that a kind's handler imports, itself or by others."""
    names = {KINDS[kind].handler.partition(":")[0]}
    new = names
    while new:
        new = {name for known in new for name in imported(modules()[known])} - names
        names = names | new
    files = {modules()[name] for name in names}
    return {file for file in files if not file.relative_to(ROOT).as_posix().startswith(RENAMED)}


def literals(node: ast.expr, file: Path) -> Iterator[str]:
    """The phase that an expression is: a text, one with "…" for what is filled in, or a constant of the module."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from (*literals(node.body, file), *literals(node.orelse, file))
    elif isinstance(node, ast.Name):
        for one in parsed(file).body:
            targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == node.id for target in targets):
                yield str(ast.literal_eval(one.value))


def called(node: ast.Call) -> tuple[str, str]:
    """(the method, what it is of), without leading underscores."""
    if not isinstance(node.func, ast.Attribute):
        return getattr(node.func, "id", ""), ""
    of = node.func.value
    return node.func.attr.lstrip("_"), (of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")).lstrip("_")


def reported(file: Path) -> set[str]:
    """The phases that a module's code gives to a job's context, or to what does so."""
    found: set[str] = set()
    for node in ast.walk(parsed(file)):
        if not isinstance(node, ast.Call):
            continue
        method, of = called(node)
        # A text's readers are given the context's own.
        if method == "progress" and (of == "context" or file.parent.name == "text"):
            found |= set(literals(node.args[0], file))
        if method == "score" and len(node.args) == 4:  # `Attempt._score`
            found |= set(literals(node.args[3], file))
        if method != "observe":
            found |= {one for word in node.keywords if word.arg == "phase" for one in literals(word.value, file)}
    return found


@cache
def inside() -> set[str]:
    """What an attribution reports while it compares what goes on inside the models."""
    return {
        str(node.args[0].value)
        for file in (ROOT / "workers" / "diagnosis" / "attribute").glob("*.py")
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Call) and called(node) == ("progress", "") and isinstance(node.args[0], ast.Constant)
    } | set(MODELS)


@cache
def of_steps() -> set[str]:
    """What the steps of a recipe report."""
    source = "".join(
        file.read_text(encoding="utf-8") for room in RENAMED[:2] for file in sorted((ROOT / room).rglob("*.py"))
    )
    return set(re.findall(r'(?:progress\(\s*|\bphase(?:: str)? ?= ?)"([\w ]+)"', source)) - WEIGHTS


def filled(phase: str) -> set[str]:
    """All that a formatted phase may be."""
    (stages,) = (one.values["stage"] for one in METRICS if one.name == "attribution_swaps")
    inner = {"modify: …": of_steps(), "inside: …": inside(), "borders: …": MODELS, "swap …": stages}
    return {phase.replace("…", one) for one in inner[phase]} if "…" in phase else {phase}


def phases(kind: str) -> set[str]:
    return {one for file in reached(kind) for phase in reported(file) for one in filled(phase)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_phase_that_a_job_of_a_kind_reports_has_words_and_no_other_phase_has(kind):
    found = phases(kind)
    assert {"text", "engine", "report", "modify", "modify: blocks"} <= found
    assert found <= (COMMON | KINDS[kind].phases).keys()
    assert KINDS[kind].phases.keys() <= found


def test_some_job_reports_every_phase_that_kinds_share():
    assert COMMON.keys() - {"queued"} <= {phase for kind in KINDS for phase in phases(kind)}
