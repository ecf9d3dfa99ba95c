"""What is wrong with a request or its models is said exactly: by the API where the request shows it, else the job."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import DOCUMENTS, compare_request

Json = dict[str, Any]
RTN: Json = {"type": "quantize.rtn", "bits": 4}


def _inline(*documents: Json) -> Json:
    return {"source": "inline", "documents": list(documents)}


@pytest.mark.parametrize(
    ("request_", "status", "code", "pointer"),
    [
        (compare_request("tinyy"), 404, "unknown_model", "/candidate/model"),
        (compare_request() | {"kind": "compere"}, 422, "unknown_kind", "/kind"),
        (
            compare_request(recipe=[{"type": "quantize.rnt", "bits": 4}]),
            422,
            "unknown_recipe",
            "/candidate/recipe/0/type",
        ),
        (compare_request() | {"windw": 3}, 422, "unknown_field", "/windw"),
        (compare_request(recipe=[RTN | {"bits": 1}]), 422, "invalid_request", "/candidate/recipe/0/bits"),
        (compare_request(recipe=[RTN | {"bits": 9}]), 422, "invalid_request", "/candidate/recipe/0/bits"),
        (
            compare_request(recipe=[RTN | {"group_size": 48}]),
            422,
            "group_size_mismatch",
            "/candidate/recipe/0/group_size",
        ),
        (
            compare_request(recipe=[{"type": "prune.magnitude", "pattern": "4:2"}]),
            422,
            "pattern_mismatch",
            "/candidate/recipe/0/pattern",
        ),
        (compare_request(text=_inline({"id": "a", "text": ""})), 422, "document_too_short", "/text/documents/0/text"),
        (
            compare_request(text=_inline({"id": "a", "text": "a\0b"})),
            422,
            "document_not_text",
            "/text/documents/0/text",
        ),
        (compare_request(window=4096), 422, "window_too_large", "/window"),
        (compare_request(text={"source": "file", "path": "/etc/passwd"}), 403, "path_forbidden", "/text/path"),
        (compare_request(text={"source": "file", "path": "../models.toml"}), 403, "path_forbidden", "/text/path"),
        (compare_request("tiny-padded"), 422, "vocabulary_mismatch", "/candidate/model"),
        (compare_request("tiny-w8a8", recipe=[RTN]), 422, "recipe_not_applicable", "/candidate/recipe"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_api_refuses_with_code_and_pointer(
    http: httpx.Client, request_: Json, status: int, code: str, pointer: str
) -> None:
    response = http.post("/v1/diagnosis/jobs", json=request_)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["pointer"]) == (status, code, pointer), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["hint"]
    assert problem["request_id"] == response.headers["x-request-id"]


def test_typos_are_answered_with_the_nearest_valid_name(http: httpx.Client) -> None:
    for request, name in (
        (compare_request("tinyy"), "tiny"),
        (compare_request() | {"windw": 3}, "window"),
        (compare_request(recipe=[{"type": "quantize.rnt", "bits": 4}]), "quantize.rtn"),
    ):
        problem = http.post("/v1/diagnosis/jobs", json=request).json()
        assert name in problem["detail"] + problem["hint"]


def test_too_many_documents_and_lone_surrogates_are_refused(http: httpx.Client) -> None:
    many = compare_request(text=_inline(*({"id": str(n), "text": "a b c"} for n in range(5001))))
    problem = http.post("/v1/diagnosis/jobs", json=many).json()
    assert problem["code"] == "too_many_documents"
    body = json.dumps(compare_request(text=_inline({"id": "a", "text": "SURROGATE"}))).replace("SURROGATE", "\\ud800 x")
    problem = http.post("/v1/diagnosis/jobs", content=body, headers={"content-type": "application/json"}).json()
    assert problem["code"] == "document_not_text"


@pytest.mark.parametrize(
    ("request_", "code", "part"),
    [
        (compare_request("tiny-nan"), "checkpoint_not_finite", "model.layers.1.mlp.up_proj.weight"),
        (compare_request("tiny-nan", recipe=[RTN]), "checkpoint_not_finite", "model.layers.1.mlp.up_proj.weight"),
        # Two letters, one token: what a tokenizer makes of a text is not known to the API.
        (compare_request(text=_inline(*DOCUMENTS[:2], {"id": "brief", "text": "de"})), "document_too_short", "brief"),
    ],
    ids=["nan", "nan-in-surgery", "one-token"],
)
def test_what_only_the_worker_can_see_fails_the_job_with_the_same_codes(
    finish: Callable[[Json], Json], request_: Json, code: str, part: str
) -> None:
    job = finish(request_)
    assert job["status"] == "failed"
    assert job["error"]["code"] == code
    assert part in job["error"]["detail"]
    assert job["error"]["hint"]


def test_a_failed_job_has_no_report_and_says_why(http: httpx.Client, finish: Callable[[Json], Json]) -> None:
    job = finish(compare_request("tiny-nan"))
    response = http.get(f"/v1/diagnosis/jobs/{job['id']}/report")
    assert response.status_code == 409
    assert response.json()["code"] == "job_not_finished"
    assert "checkpoint_not_finite" in response.text


def test_the_worker_lives_after_a_failed_job(finish: Callable[[Json], Json]) -> None:
    assert finish(compare_request("tiny-nan"))["status"] == "failed"
    assert finish(compare_request())["status"] == "succeeded"
