"""What is wrong with a request or its models is said exactly: by the API where the request shows it, else the job."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import compare_request

Json = dict[str, Any]
RTN: Json = {"type": "quantize.rtn", "bits": 4}


@pytest.mark.parametrize(
    ("request_", "code", "part"),
    [
        (compare_request("tiny-nan"), "checkpoint_not_finite", "model.layers.1.mlp.up_proj.weight"),
        (compare_request("tiny-nan", recipe=[RTN]), "checkpoint_not_finite", "model.layers.1.mlp.up_proj.weight"),
    ],
    ids=["nan", "nan-in-surgery"],
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
