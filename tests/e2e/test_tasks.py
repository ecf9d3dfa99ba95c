"""A tasks job through the whole service, to its page in a real browser, and what is refused before it is queued."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from playwright.sync_api import Browser

from app.cli.client import Client
from app.cli.schema import report_schema
from app.kinds.tasks.answers import OUTCOMES
from app.models.tasks.reading import SHIPPED
from app.settings import Settings
from tests.e2e.conftest import compare_request
from tests.support.browser import OVERFLOWING, Visit
from workers.analysis.flips import runs

Json = dict[str, Any]


def request(*tasks: Json, **fields: Any) -> Json:
    recipe = [{"type": "quantize.rtn", "bits": 2, "group_size": 32}]
    return compare_request(recipe=recipe) | {"kind": "tasks", "tasks": list(tasks)} | fields


def test_answers_are_compared_and_the_page_shows_how(
    finish: Callable[[Json], Json], client: Client, settings: Settings, home: Path, browser: Browser, tmp_path: Path
) -> None:
    (home / "texts" / "sentences.jsonl").write_bytes(SHIPPED.read_bytes())
    theirs = {"source": "harness", "task": "hellaswag", "path": "sentences.jsonl", "items": 24, "metric": "acc_norm"}
    job = finish(request({"source": "shipped", "items": 24}, theirs))
    assert job["status"] == "succeeded", job["error"]
    assert {"answers.jsonl", "tokens.parquet"} <= set(job["artifacts"])
    report = client.report(job["id"])
    jsonschema.Draft202012Validator(report_schema("tasks")).validate(report)
    (result,), (by_the_harness,) = report["tasks"], report["harness_tasks"]
    assert result["items"] == 24
    assert by_the_harness["harness"]["task"] == "hellaswag"
    for field in ("items", "flips", "reference", "candidate", "kl"):
        assert by_the_harness[field] == result[field]
    remembered = {run.job for run in runs.read(settings.home)}
    assert (job["id"] in remembered) == (result["outcome"] != "at_chance")
    assert job["answer"] == OUTCOMES[result["outcome"]].capitalize()

    file = tmp_path / "tasks.html"
    file.write_text(client.report_html(job["id"]), encoding="utf-8")
    for width in (380, 1280):
        visit = Visit(browser, file, width)
        assert visit.page.evaluate(OVERFLOWING) == []
        assert visit.messages == []
        assert visit.page.locator("#results svg.strip").count() > 0
        visit.context.close()


@pytest.mark.parametrize(
    ("row", "form", "code", "pointer", "words"),
    [
        ({"question": "Q", "answer": "#### 1"}, "arc", "task_invalid", "/tasks/0/path", "arc needs the field choices"),
        ({"question": "Q"}, "gsm8k", "task_invalid", "/tasks/0/path", "the answer is missing (answer)"),
        ({"question": "", "answer": "#### 1"}, "gsm8k", "task_invalid", "/tasks/0/path", "question is empty"),
        (
            {"prompt": "def f():\n", "test": "def check(f): f()", "entry_point": "f"},
            "humaneval",
            "code_execution_disabled",
            "/tasks/0/format",
            "this service is set not to",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(
    http: httpx.Client, home: Path, row: Json, form: str, code: str, pointer: str, words: str
) -> None:
    (home / "texts" / f"faulty-{form}.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    answer = http.post(
        "/v1/diagnosis/jobs", json=request({"source": "file", "format": form, "path": f"faulty-{form}.jsonl"})
    )
    problem = answer.json()
    assert answer.status_code == {"task_invalid": 422, "code_execution_disabled": 403}[code]
    assert (problem["code"], problem["pointer"]) == (code, pointer)
    assert words in problem["detail"]
