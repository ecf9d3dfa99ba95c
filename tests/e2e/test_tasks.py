"""A tasks job through the whole service, to its page in a real browser, and what is refused before it is queued."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
from playwright.sync_api import Browser

from app.cli.client import Client
from app.cli.schema import report_schema
from app.kinds.tasks.answers import OUTCOMES
from app.models.tasks.reading import SHIPPED
from app.settings import Settings
from tests.e2e.conftest import compare_request
from tests.support.browser import look
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
    look(browser, file)
