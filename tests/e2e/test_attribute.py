"""An attribute job through the whole service, to its page in a real browser."""

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


def test_the_worst_part_is_found_shown_and_its_treatment_accepted(
    finish: Callable[[Json], Json], client: Client, http: httpx.Client, browser: Browser, tmp_path: Path
) -> None:
    recipe = [{"type": "quantize.rtn", "bits": 2, "group_size": 32, "layers": [1]}]
    body = compare_request(recipe=recipe) | {"kind": "attribute", "tokens": 512, "top": 2, "budget": 64}
    estimate = http.post("/v1/diagnosis/jobs", json=body | {"dry_run": True})
    assert estimate.status_code == 200, estimate.text
    refused = http.post("/v1/diagnosis/jobs", json=body | {"layers": [99]})
    assert (refused.status_code, refused.json()["pointer"]) == (422, "/layers/0")

    job = finish(body)
    assert job["status"] == "succeeded", job["error"]
    assert {"sites.json", "recipe.json", "tokens.parquet"} <= set(job["artifacts"])
    report = client.report(job["id"])
    jsonschema.Draft202012Validator(report_schema("attribute")).validate(report)
    assert report["sites"][0]["name"].startswith("layers.1")
    assert all(site["control"] in {None, 0} for site in report["sites"])
    treated = http.get(f"/v1/diagnosis/jobs/{job['id']}/artifacts/recipe.json").json()
    assert http.post("/v1/diagnosis/jobs", json=compare_request(recipe=treated, dry_run=True)).status_code == 200

    file = tmp_path / "attribute.html"
    file.write_text(client.report_html(job["id"]), encoding="utf-8")
    look(browser, file)
