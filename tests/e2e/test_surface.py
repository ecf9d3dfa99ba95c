"""A surface job through the whole service, to its page in a real browser."""

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


def test_two_knobs_are_turned_and_the_page_shows_every_setting(
    finish: Callable[[Json], Json], client: Client, http: httpx.Client, browser: Browser, tmp_path: Path
) -> None:
    recipe = [
        {"type": "prune.magnitude", "sparsity": {"sweep": [0.3, 0.6]}},
        {"type": "quantize.rtn", "bits": {"sweep": [8, 3]}, "group_size": 32},
    ]
    job = finish(compare_request(recipe=recipe) | {"kind": "surface"})
    assert job["status"] == "succeeded", job["error"]
    assert set(job["artifacts"]) == {"surface.csv", "recipe.json"}
    report = client.report(job["id"])
    jsonschema.Draft202012Validator(report_schema("surface")).validate(report)
    # nothing turned, each knob alone, both together
    assert sorted((point["first"], point["second"]) for point in report["points"]) == [
        (first, second) for first in range(3) for second in range(3)
    ]
    again = report["request"] | {"text": compare_request()["text"], "dry_run": True}
    assert http.post("/v1/diagnosis/jobs", json=again).status_code == 200

    file = tmp_path / "surface.html"
    file.write_text(client.report_html(job["id"]), encoding="utf-8")
    look(browser, file)
