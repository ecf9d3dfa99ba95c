"""A trajectory job through the whole service, to its page; what is refused before it is queued."""

from collections.abc import Callable
from typing import Any

import httpx
import jsonschema

from app.cli.client import Client
from app.cli.schema import report_schema
from tests.e2e.conftest import compare_request

Json = dict[str, Any]
WOUND = [{"type": "quantize.rtn", "bits": 3, "group_size": 32}]


def trajectory_request(**fields: Any) -> Json:
    request = compare_request(recipe=WOUND) | {
        "kind": "trajectory",
        "prompts": 6,
        "prompt_tokens": 8,
        "tokens": 10,
        "decoders": [{"name": "greedy"}, {"name": "min_p", "p": 0.2}, {"name": "beam", "beams": 2}],
    }
    del request["window"]
    return request | fields


def test_texts_are_written_scored_and_shown(finish: Callable[[Json], Json], client: Client, http: httpx.Client) -> None:
    job = finish(trajectory_request())
    assert job["status"] == "succeeded", job["error"]
    assert job["artifacts"] == ["texts.jsonl"]
    report = client.report(job["id"])
    jsonschema.Draft202012Validator(report_schema("trajectory")).validate(report)
    assert [cell["decoder"] for cell in report["cells"]] == ["greedy", "min_p", "beam"]
    assert report["generated_tokens"] <= 2 * 3 * 6 * 10
    assert report["cells"][0]["kl_reference_text"]["mean"] > 0
    page = client.report_html(job["id"])
    assert "Decoder by modification" in page
    assert report["samples"]
    texts = http.get(f"/v1/diagnosis/jobs/{job['id']}/artifacts/texts.jsonl").text.splitlines()
    assert len(texts) == 2 * 3 * 6
