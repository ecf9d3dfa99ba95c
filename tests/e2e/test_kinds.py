"""A job of each other kind than compare through the whole service, to its page in a real browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
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
JOBS = "/v1/diagnosis/jobs"
ROUNDED = {"type": "quantize.rtn", "bits": 2, "group_size": 32}
FITTED = [
    {"id": f"f{n}", "text": " ".join(f"a model that is changed loses {n * k}" for k in range(12))} for n in range(8)
]


@pytest.fixture
def done(
    finish: Callable[[Json], Json], client: Client, browser: Browser, tmp_path: Path
) -> Callable[..., tuple[Json, Json]]:
    """`done(kind, step, …)`: job and report of a candidate; the report keeps its schema and has a page."""

    def run(kind: str, *recipe: Json, artifacts: set[str], **fields: Any) -> tuple[Json, Json]:
        body = compare_request(recipe=list(recipe)) | {"kind": kind} | fields
        job = finish({name: value for name, value in body.items() if value is not None})
        assert job["status"] == "succeeded", job["error"]
        assert artifacts <= set(job["artifacts"])
        report = client.report(job["id"])
        jsonschema.Draft202012Validator(report_schema(kind)).validate(report)
        file = tmp_path / f"{kind}.html"
        file.write_text(client.report_html(job["id"]), encoding="utf-8")
        look(browser, file)
        return job, report

    return run


def accepted(http: httpx.Client, body: Json) -> bool:
    return http.post(JOBS, json=body | {"dry_run": True}).status_code == 200


def test_a_knob_is_turned(done: Callable[..., tuple[Json, Json]], http: httpx.Client) -> None:
    step = {"type": "prune.magnitude", "sparsity": {"sweep": {"from": 0.1, "to": 0.7, "points": 7}}}
    _, report = done("sweep", step, artifacts={"curve.json"})
    assert [point["value"] for point in report["points"]] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert report["threshold"] is not None and report["threshold"]["ci"] is not None
    assert accepted(http, report["request"] | {"text": compare_request()["text"]})


def test_two_knobs_are_turned(done: Callable[..., tuple[Json, Json]], http: httpx.Client) -> None:
    steps = [
        {"type": "prune.magnitude", "sparsity": {"sweep": [0.3, 0.6]}},
        {"type": "quantize.rtn", "bits": {"sweep": [8, 3]}, "group_size": 32},
    ]
    _, report = done("surface", *steps, artifacts={"surface.csv", "recipe.json"})
    # nothing turned, each knob alone, both together
    assert sorted((point["first"], point["second"]) for point in report["points"]) == [
        (first, second) for first in range(3) for second in range(3)
    ]
    assert accepted(http, report["request"] | {"text": compare_request()["text"]})


def test_answers_are_compared(done: Callable[..., tuple[Json, Json]], settings: Settings, home: Path) -> None:
    (home / "texts" / "sentences.jsonl").write_bytes(SHIPPED.read_bytes())
    theirs = {"source": "harness", "task": "hellaswag", "path": "sentences.jsonl", "items": 24, "metric": "acc_norm"}
    tasks = [{"source": "shipped", "items": 24}, theirs]
    job, report = done("tasks", ROUNDED, artifacts={"answers.jsonl", "tokens.parquet"}, tasks=tasks)
    (result,), (by_the_harness,) = report["tasks"], report["harness_tasks"]
    assert result["items"] == 24
    assert by_the_harness["harness"]["task"] == "hellaswag"
    for field in ("items", "flips", "reference", "candidate", "kl"):
        assert by_the_harness[field] == result[field]
    remembered = {run.job for run in runs.read(settings.home)}
    assert (job["id"] in remembered) == (result["outcome"] != "at_chance")
    assert job["answer"] == OUTCOMES[result["outcome"]].capitalize()


def test_texts_are_written_and_scored(done: Callable[..., tuple[Json, Json]], http: httpx.Client) -> None:
    decoders = [{"name": "greedy"}, {"name": "min_p", "p": 0.2}, {"name": "beam", "beams": 2}]
    asked = {"prompts": 6, "prompt_tokens": 8, "tokens": 10, "decoders": decoders, "window": None}
    job, report = done("trajectory", ROUNDED | {"bits": 3}, artifacts={"texts.jsonl"}, **asked)
    assert [cell["decoder"] for cell in report["cells"]] == ["greedy", "min_p", "beam"]
    assert report["generated_tokens"] <= 2 * 3 * 6 * 10
    assert report["cells"][0]["kl_reference_text"]["mean"] > 0
    assert report["samples"]
    assert len(http.get(f"{JOBS}/{job['id']}/artifacts/texts.jsonl").text.splitlines()) == 2 * 3 * 6


def test_the_worst_part_is_found_and_its_treatment_accepted(
    done: Callable[..., tuple[Json, Json]], http: httpx.Client
) -> None:
    files = {"sites.json", "recipe.json", "tokens.parquet"}
    asked = {"tokens": 512, "top": 2, "budget": 64}
    job, report = done("attribute", ROUNDED | {"layers": [1]}, artifacts=files, **asked)
    assert report["sites"][0]["name"].startswith("layers.1")
    assert all(site["control"] in {None, 0} for site in report["sites"])
    treated = http.get(f"{JOBS}/{job['id']}/artifacts/recipe.json").json()
    assert accepted(http, compare_request(recipe=treated))


def test_a_damaged_model_is_treated(done: Callable[..., tuple[Json, Json]], http: httpx.Client) -> None:
    files = {"README.md", "recipe.json", "compare.json", "candidate.parquet", "treated.parquet"}
    asked = {
        "calibration": {"source": "inline", "documents": FITTED},
        "calibration_windows": 4,
        "calibration_window": 32,
        "treatments": ["protect"],
        "budget": {"bytes": 120_000},
        "trials": 3,
    }
    job, report = done("mitigate", ROUNDED, artifacts=files, **asked)
    assert report["answer"] == "treated", report["verdict"]
    recipe = http.get(f"{JOBS}/{job['id']}/artifacts/recipe.json").json()
    assert recipe == report["recommended"]
    assert accepted(http, compare_request(recipe=recipe))
