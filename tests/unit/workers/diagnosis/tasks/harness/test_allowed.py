"""Definitions of the harness that may be run: what their own code does, looked up in the installed version."""

import re
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models.tasks.harness import HARNESS_TASKS, read_rows
from app.settings import Settings
from tests.support.harness_tasks import task
from workers.diagnosis.tasks.harness.definition import Refusal, _check, _index

RUNS_CODE = re.compile(
    r"\b(eval|exec|compile|__import__|open)\(|subprocess|os\.system|parse_expr|sympy|pickle|importlib|requests|urllib|"
    r"load_dataset|import evaluate|math_verify"
)


def sources(file: Path) -> str:
    """The functions' modules of a definition and of those that it includes."""
    text = file.read_text(encoding="utf-8")
    found = ""
    for name in re.findall(r"!function\s+([\w.]+)", text):
        found += file.with_name(f"{name.rpartition('.')[0]}.py").read_text(encoding="utf-8")
    for included in re.findall(r"^include:\s*[\"']?([^\s\"']+)", text, re.MULTILINE):
        found += sources((file.parent / included).resolve())
    return found


def test_every_task_that_may_be_run_is_defined_and_runs_no_code() -> None:
    for name in sorted(HARNESS_TASKS):
        entry = _index()[name]
        assert entry.kind.name == "TASK", name
        _check(dict(entry.cfg), Refusal(task(name), "/tasks/0"))
        assert not RUNS_CODE.search(sources(Path(entry.yaml_path))), name


def test_the_search_finds_code_in_definitions_that_have_it() -> None:
    assert RUNS_CODE.search(sources(Path(_index()["minerva_math_algebra"].yaml_path)))


@pytest.mark.parametrize("name", ["mbpp", "humaneval", "score_robustness_math", "mmlu", "helloswag", "nowhere"])
def test_any_other_task_is_refused_before_its_file_is_looked_at(name: str, tmp_path: Path) -> None:
    with pytest.raises(HemostatError) as caught:
        read_rows(task(name), Settings(home=tmp_path), pointer="/tasks/0")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, "/tasks/0/task")
