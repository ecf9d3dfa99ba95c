"""A sweep job through the whole service, to its page in a real browser; and what is refused before it is queued."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
from playwright.sync_api import Browser

from app.cli.client import Client
from app.cli.schema import report_schema
from tests.e2e.conftest import compare_request
from tests.support.browser import look

Json = dict[str, Any]


def sweep_request(step: Json, **changes: Any) -> Json:
    return compare_request(recipe=[step]) | {"kind": "sweep"} | changes


def test_a_knob_is_turned_and_the_page_shows_how_far(
    finish: Callable[[Json], Json], client: Client, http: httpx.Client, browser: Browser, tmp_path: Path
) -> None:
    step = {"type": "prune.magnitude", "sparsity": {"sweep": {"from": 0.1, "to": 0.7, "points": 7}}}
    job = finish(sweep_request(step))
    assert job["status"] == "succeeded", job["error"]
    assert job["artifacts"] == ["curve.json"]
    report = client.report(job["id"])
    jsonschema.Draft202012Validator(report_schema("sweep")).validate(report)
    assert [point["value"] for point in report["points"]] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert report["threshold"] is not None and report["threshold"]["ci"] is not None
    # What the report holds of its request is taken again.
    again = report["request"] | {"text": compare_request()["text"], "dry_run": True}
    assert http.post("/v1/diagnosis/jobs", json=again).status_code == 200

    file = tmp_path / "sweep.html"
    file.write_text(client.report_html(job["id"]), encoding="utf-8")
    look(browser, file)
