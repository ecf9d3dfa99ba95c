"""A mitigate job through the whole service, to its page in a real browser."""

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
FITTED = [
    {"id": f"f{n}", "text": " ".join(f"a model that is changed loses {n * k}" for k in range(12))} for n in range(8)
]


def test_a_damaged_model_is_treated_and_the_page_shows_how(
    finish: Callable[[Json], Json], client: Client, http: httpx.Client, browser: Browser, tmp_path: Path
) -> None:
    job = finish(
        compare_request(recipe=[{"type": "quantize.rtn", "bits": 2, "group_size": 32}])
        | {
            "kind": "mitigate",
            "calibration": {"source": "inline", "documents": FITTED},
            "calibration_windows": 4,
            "calibration_window": 32,
            "treatments": ["protect"],
            "budget": {"bytes": 120_000},
            "trials": 3,
        }
    )
    assert job["status"] == "succeeded", job["error"]
    assert {"README.md", "recipe.json", "compare.json", "candidate.parquet", "treated.parquet"} <= set(job["artifacts"])
    report = client.report(job["id"])
    jsonschema.Draft202012Validator(report_schema("mitigate")).validate(report)
    assert report["answer"] == "treated", report["verdict"]
    recipe = http.get(f"/v1/diagnosis/jobs/{job['id']}/artifacts/recipe.json").json()
    assert recipe == report["recommended"]
    assert http.post("/v1/diagnosis/jobs", json=compare_request(recipe=recipe, dry_run=True)).status_code == 200

    file = tmp_path / "mitigate.html"
    file.write_text(client.report_html(job["id"]), encoding="utf-8")
    look(browser, file)
