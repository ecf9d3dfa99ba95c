"""A trajectory job through the whole service, to its page; what is refused before it is queued."""

from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest

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


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"decoders": [{"name": "top_p", "p": 1.5}]}, "invalid_request", "/decoders/0/p"),
        ({"decoders": [{"name": "no_such"}]}, "invalid_request", "/decoders/0/name"),
        ({"decoders": [{"name": "greedy"}, {"name": "greedy"}]}, "invalid_request", "/decoders"),
        ({"candidates": [{"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": b}]} for b in (2, 4, 5, 6)]},
         "invalid_request", "/candidates"),
        ({"candidates": [{"model": "tiny", "recipe": WOUND}]}, "invalid_request", "/candidates"),
        ({"candidates": [{"model": "missing"}]}, "unknown_model", "/candidates/0/model"),
        ({"candidates": [{"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 48}]}]},
         "group_size_mismatch", "/candidates/0/recipe/0/group_size"),
        ({"prompt_tokens": 100, "tokens": 200}, "window_too_large", "/tokens"),
        ({"text": {"source": "inline", "documents": [{"id": "e", "text": ""}]}}, "document_too_short",
         "/text/documents/0/text"),
        ({"candidate": {"model": "tiny", "recipe": [{"type": "quantize.activations", "bits": 8}]}},
         "recipe_not_applicable", "/decoders/2"),
    ],
)  # fmt: skip
def test_it_is_refused_before_it_is_queued(http: httpx.Client, fields: Json, code: str, pointer: str) -> None:
    answer = http.post("/v1/diagnosis/jobs", json=trajectory_request(**fields))
    assert answer.status_code in (404, 422), answer.text
    found = [(error["code"], error["pointer"]) for error in answer.json().get("errors") or [answer.json()]]
    assert (code, pointer) in found


def test_a_dry_run_tells_how_much_will_be_written(http: httpx.Client) -> None:
    answer = http.post("/v1/diagnosis/jobs", json=trajectory_request(dry_run=True))
    assert answer.status_code == 200
    estimate = answer.json()
    assert estimate["tokens"] == 2 * 3 * 6 * 10
    assert estimate["documents"] == 6
