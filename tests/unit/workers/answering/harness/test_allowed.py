"""Definitions of the harness that may be run: what their own code does, looked up in the installed version."""

import re
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode
from app.models.tasks.harness import HARNESS_TASKS, read_rows
from app.settings import Settings
from tests.support.harness_tasks import task
from tests.support.refusals import refused
from workers.answering.harness.definition import _manager, fields_of
from workers.answering.harness.metric import RIGHT_OR_WRONG

RUNS_CODE = re.compile(
    r"\b(eval|exec|compile|__import__|open)\(|subprocess|os\.system|parse_expr|sympy|pickle|importlib|requests|urllib|"
    r"load_dataset|import evaluate|math_verify"
)

DRAWS = re.compile(r"\b(random|shuffle|permutation|sample)\b")
# Fields that would change what is asked or how it is scored.
NOT_READ = (
    "process_results",
    "custom_dataset",
    "unsafe_code",
    "use_prompt",
    "class",
    "doc_to_image",
    "doc_to_audio",
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


def code_of(name: str) -> str:
    return sources(Path(_manager().task_index[name].yaml_path))


def test_every_task_that_may_be_run_is_defined_and_its_code_runs_and_draws_nothing() -> None:
    for name in sorted(HARNESS_TASKS):
        assert not RUNS_CODE.search(code_of(name)), name
        assert not DRAWS.search(code_of(name)), name


def test_every_task_that_may_be_run_asks_one_question_an_item_whose_answer_is_right_or_wrong() -> None:
    for name in sorted(HARNESS_TASKS):
        fields = fields_of(name)
        metrics = {one["metric"] for one in fields["metric_list"]}
        assert metrics - {"f1"} <= set(RIGHT_OR_WRONG), name
        assert metrics - {"f1"}, name
        assert fields["output_type"] in {"multiple_choice", "generate_until"}, name
        assert ("exact_match" in metrics) == (fields["output_type"] == "generate_until"), name
        assert not any(map(fields.get, NOT_READ)), name
        assert fields.get("repeats", 1) == 1, name
        if fields["output_type"] == "multiple_choice":
            assert fields["doc_to_text"], name
        else:
            asked = fields["generation_kwargs"]
            assert asked["until"] and isinstance(asked["until"], list), name
            assert not asked["do_sample"], name
            assert not asked.keys() - {"until", "do_sample", "temperature"}, name


def test_the_search_finds_code_in_definitions_that_have_it() -> None:
    assert RUNS_CODE.search(code_of("minerva_math_algebra"))
    assert DRAWS.search(code_of("gpqa_main_zeroshot"))


@pytest.mark.parametrize("name", ["mbpp", "humaneval", "score_robustness_math", "mmlu", "helloswag", "nowhere"])
def test_any_other_task_is_refused_before_its_file_is_looked_at(name: str, tmp_path: Path) -> None:
    with refused(ErrorCode.INVALID_REQUEST, "/tasks/0/task"):
        read_rows(task(name), Settings(home=tmp_path), pointer="/tasks/0")
