"""A sweep job through the whole service, to its page in a real browser; and what is refused before it is queued."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from playwright.sync_api import Browser

from app.cli.client import Client
from app.cli.schema import report_schema
from tests.e2e.conftest import compare_request
from tests.support.browser import OVERFLOWING, Visit

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
    for width in (380, 1280):
        visit = Visit(browser, file, width)
        assert visit.page.evaluate(OVERFLOWING) == []
        assert visit.messages == []
        assert visit.page.locator("#kl svg.chart circle").count() == 7
        visit.context.close()


@pytest.mark.parametrize(
    ("step", "pointer"),
    [
        ({"type": "prune.magnitude", "sparsity": {"sweep": [0.5]}}, "/candidate/recipe/0/sparsity/sweep"),
        ({"type": "prune.magnitude", "sparsity": {"sweep": [0.5, 1.5]}}, "/candidate/recipe/0/sparsity/sweep/1"),
        ({"type": "prune.magnitude", "sparsity": 0.5, "bits": {"sweep": [8, 4]}}, "/candidate/recipe/0/bits"),
        ({"type": "lowrank.svd", "rank": {"sweep": [4, 600]}}, "/candidate/recipe/0/rank/sweep/1"),
        ({"type": "prune.magnitude", "sparsity": 0.5}, "/knobs"),
    ],
)
def test_what_cannot_be_turned_is_refused_before_it_is_queued(http: httpx.Client, step: Json, pointer: str) -> None:
    answer = http.post("/v1/diagnosis/jobs", json=sweep_request(step))
    assert answer.status_code in (400, 422), answer.text
    assert pointer in answer.text
    assert answer.json()


def test_bounds_that_miss_the_range_are_refused(http: httpx.Client) -> None:
    step = {"type": "prune.magnitude", "sparsity": {"sweep": [0.1, 0.5]}}
    answer = http.post("/v1/diagnosis/jobs", json=sweep_request(step, bounds={"s0": [0.8, 0.9]}))
    assert "/bounds/s0" in answer.text
    assert "s0 is bounded to 0.8..0.9, outside" in answer.text
