"""Jobs that run code of models prove first, before any model is loaded, that it is confined."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.contracts.errors import ErrorCode
from app.kinds.tasks.request import TasksRequest
from app.settings import Settings
from tests.support.refusals import refused
from workers.answering.sandbox import runner
from workers.diagnosis.tasks.job import tasks

ROW = {"prompt": "def f():\n", "test": "def check(f): ...", "entry_point": "f", "canonical_solution": "    return 1\n"}
BODY: dict[str, Any] = {
    "reference": {"model": "a"},
    "candidate": {"model": "a", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "text": {"source": "inline", "documents": [{"id": "d", "text": "some words"}]},
    "tasks": [{"source": "file", "format": "humaneval", "path": "code.jsonl"}],
}


def test_no_job_runs_code_that_is_not_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code.jsonl").write_text("".join(json.dumps(ROW | {"task_id": f"{row}"}) + "\n" for row in range(2)))
    settings = Settings(home=tmp_path, text_root=tmp_path, code_execution=True)
    context = cast(Any, SimpleNamespace(settings=settings, check_cancelled=lambda: None))
    monkeypatch.setattr(runner, "PROBES", {"count": "assert 1 + 1 == 2"})
    with refused(ErrorCode.CODE_SANDBOX_UNAVAILABLE):
        tasks(TasksRequest.model_validate(BODY | {"kind": "tasks"}), context, cast(Any, None))
