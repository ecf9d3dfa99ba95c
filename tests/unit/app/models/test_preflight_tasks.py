"""What is refused of a tasks request before it is queued, and what it is estimated to take and to show."""

import json

import pytest
from pydantic import ValidationError

from app.contracts.errors import ErrorCode
from app.kinds.estimates import estimate
from app.kinds.preflight import check_request
from app.kinds.tasks.request import TasksRequest
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.asked import rejection

CODE = {"prompt": "def f(x):\n", "test": "def check(f):\n    assert f(1)\n", "entry_point": "f"}


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "code.jsonl").write_text(2 * (json.dumps(CODE) + "\n"))
    return Settings(home=tmp_path / "home", text_root=tmp_path)


@pytest.fixture
def registry(alone):
    return alone


def request(**changes):
    return TasksRequest.model_validate(
        {
            "kind": "tasks",
            "reference": {"model": "llama"},
            "self_check": True,
            "candidate": {"model": "llama"},
            "window": 64,
        }
        | changes
    )


FILE = {"source": "file", "format": "arc", "path": "x"}
NO_TASKS = [
    [{"source": "hub"}],
    [FILE | {"format": "squad"}],
    [FILE | {"path": ""}],
    [FILE | {"shots": 2}],
    [{"source": "shipped"}, {"source": "shipped"}],
]


def test_what_the_schema_refuses():
    for tasks in ([], *NO_TASKS, [FILE | {"metric": "pass_at_1"}]):
        with pytest.raises(ValidationError):
            request(tasks=tasks)
    for margin in (0, 0.6):
        with pytest.raises(ValidationError):
            request(margin=margin)


def test_code_is_refused_unless_it_is_allowed(settings, registry):
    asked = request(tasks=[{"source": "file", "format": "humaneval", "path": "code.jsonl", "max_tokens": 16}])
    error = rejection(asked, registry, settings)
    assert (error.code, error.pointer) == (ErrorCode.CODE_EXECUTION_DISABLED, "/tasks/0/format")
    check_request(asked, registry, settings.model_copy(update={"code_execution": True}))


def test_answers_that_fill_the_context_are_refused(settings, registry):
    allowed = settings.model_copy(update={"code_execution": True})
    task = {"source": "file", "format": "humaneval", "path": "code.jsonl"}
    limit = inspect(registry.resolve("llama").checkpoint_path()).max_position
    check_request(request(tasks=[task | {"max_tokens": limit - 1}]), registry, allowed)
    error = rejection(request(tasks=[task | {"max_tokens": limit}]), registry, allowed)
    assert (error.code, error.pointer) == (ErrorCode.WINDOW_TOO_LARGE, "/tasks/0/max_tokens")


def test_what_can_be_shown_is_told_at_the_level_that_each_task_is_decided_at(settings, registry, tmp_path):
    (tmp_path / "sums.jsonl").write_text(1000 * '{"question": "1 + 1?", "answer": "#### 2"}\n')

    def told(tasks):
        several = [
            {"source": "file", "format": "gsm8k", "path": "sums.jsonl", "name": f"sums{number}", "max_tokens": 8}
            for number in range(tasks)
        ]
        lines = estimate(request(tasks=several), registry, settings).assumptions
        return [line for line in lines if "1000 items are" in line]

    (alone,) = told(1)
    assert alone.endswith("(McNemar, 80 % power, 5 % level)")
    for line in told(9):
        assert "0.56 % level: 5 % divided by 9 tasks" in line
        # By enumeration with binomial tests: 0.0204 alone, 0.0257 at 0.05 / 9.
        assert "show a difference in accuracy of 2.6 points or more at a flip rate of 5 %" in line
    assert "show a difference in accuracy of 2.0 points or more at a flip rate of 5 %" in alone
