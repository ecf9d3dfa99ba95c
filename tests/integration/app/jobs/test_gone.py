"""Deleted means gone: a marker in a job's texts is searched for in every file of the home, byte by byte."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.integration.app.conftest import Api, compare
from tests.integration.app.deployments.asking import until
from tests.support.worker import WorkerProcess

JOBS = "/v1/diagnosis/jobs"
MARKER = "Ostrich-4711 never crosses the seventh bridge."
TEXT = {"source": "inline", "documents": [{"id": "d1", "text": MARKER}]}
STEP = {"type": "quantize.gptq", "bits": 4, "calibration": TEXT, "calibration_window": 64, "calibration_windows": 1}
CANDIDATE = {"model": "tiny", "recipe": [STEP]}
MINUTE_S = 60


@pytest.fixture
def worker(api: Api, tmp_path: Path) -> Iterator[WorkerProcess]:
    logs = api.state.settings.home / "logs"
    logs.mkdir()
    with WorkerProcess(api.state.settings, logs / "worker.log") as made:
        yield made


async def holders(api: Api) -> list[str]:
    """Files of the home and of Redis that hold the marker."""
    told = await cast(Any, api.state.redis.config_get("dir"))
    found = []
    for root in (api.state.settings.home, Path(told["dir"])):
        for folder, _, names in os.walk(root):  # which passes over a folder that was just removed
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and MARKER.encode() in path.read_bytes():
                        found.append(str(path.relative_to(root)))
    return sorted(found)


async def until_only(api: Api, *names: str) -> None:
    deadline = time.monotonic() + MINUTE_S
    while (found := await holders(api)) != sorted(names):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)


async def ended(api: Api, job_id: str) -> dict[str, Any]:
    while True:
        job = (await api.http.get(f"{JOBS}/{job_id}")).json()
        if job["status"] in {"succeeded", "failed", "cancelled"}:
            return cast("dict[str, Any]", job)
        await asyncio.sleep(0.1)


async def begun(api: Api, job_id: str) -> bool:
    return bool((await api.http.get(f"{JOBS}/{job_id}")).json()["progress"]["done"])


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "cancelled in the queue"])
async def test_the_text_of_a_job_is_nowhere_after_its_end(
    api: Api, worker: WorkerProcess, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    if end == "cancelled in the queue":
        worker.stop()
    deed = {"do": "tell_secret"} if end == "failed" else {"do": "count", "steps": "3", "halt": "1"}
    if end == "succeeded":
        deed = {"do": "count", "steps": "3"}
    job_id = await api.submit(text=TEXT, candidate=CANDIDATE, allow_overlap=True, metadata=deed)
    if end == "cancelled":
        await until(lambda: begun(api, job_id))
    if end.startswith("cancelled"):
        await api.http.post(f"{JOBS}/{job_id}/cancel")
    assert (await ended(api, job_id))["status"] == end.partition(" ")[0]
    await until_only(api)
    assert MARKER not in caplog.text


async def test_no_kind_of_job_leaves_the_text_that_it_really_read(api: Api) -> None:
    documents = [{"id": f"d{n}", "text": " ".join([MARKER, *(str(n * k) for k in range(60))])} for n in range(24)]
    text = {"source": "inline", "documents": documents}
    step = STEP | {"calibration": text}
    candidate = {"model": "tiny", "recipe": [step]}
    kinds: dict[str, dict[str, Any]] = {
        "compare": {"store_text": False},
        "trajectory": {
            "store_text": False,
            "prompts": 2,
            "prompt_tokens": 8,
            "tokens": 8,
            "decoders": [{"name": "greedy"}],
        },
        "calibrate": {"calibrators": ["temperature"]},
    }
    settings = api.state.settings.model_copy(
        update={"engine_batch_tokens": 512, "engine_kv_cache_bytes": 16 * 1024 * 1024, "worker_metrics_port": 0}
    )
    logs = settings.home / "logs"
    logs.mkdir()
    handlers = "workers.diagnosis.registry:HANDLERS"
    with WorkerProcess(settings, logs / "worker.log", handlers=handlers) as worker:
        for kind, fields in kinds.items():
            body = compare(kind=kind, text=text, candidate=candidate, allow_overlap=True, **fields)
            if kind == "trajectory":
                body.pop("window")
            answer = await api.http.post(JOBS, json=body)
            assert answer.status_code == 202, answer.text
            assert await holders(api) != []
            job = await ended(api, answer.json()["id"])
            assert job["status"] == "succeeded", (job["error"], worker.text())
            await until_only(api)


async def test_deleting_a_job_removes_what_it_was_allowed_to_keep(api: Api, worker: WorkerProcess) -> None:
    job_id = await api.submit(text=TEXT, metadata={"do": "quote"})
    assert (await ended(api, job_id))["status"] == "succeeded"
    page = api.state.settings.home / "reports" / f"{job_id}.html"
    page.parent.mkdir()
    page.write_text(MARKER)
    kept = f"jobs/{job_id}/attempt-1/quote.txt", f"reports/{job_id}.html"
    await until_only(api, *kept, "references/key/header.json")
    assert (await api.http.delete(f"{JOBS}/{job_id}")).status_code == 204
    await until_only(api)
