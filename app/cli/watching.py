"""A job is submitted, followed to its end, and its result shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from app.cli.client import Client
from app.cli.output import phases
from app.contracts.errors import ErrorCode, HemostatError

Json = dict[str, Any]


def follow(client: Client, job_id: str, console: Console) -> Json:
    """Shows progress until the job ends and returns it."""
    with phases(console) as display:
        for name, data in client.watch(job_id):
            if name == "progress":
                progress = data["progress"]
                display.update(progress["phase"], progress["done"], progress["total"])
            elif name == "log":
                display.say(data["message"])
            elif name == "state" and data["status"] == "running" and data["attempt"] > 1:
                display.say(f"attempt {data['attempt']}: going on from what was already scored")
    return client.job(job_id)


def run_to_end(client: Client, request: Json, console: Console) -> Json:
    """Submits a job and follows it; Ctrl-C cancels the job before it leaves.

    Raises `HemostatError` with the job's own code when it does not succeed.
    """
    job = client.submit(request)
    try:
        job = follow(client, job["id"], console)
    except KeyboardInterrupt:
        console.print(f"cancelling {job['id']} …")
        client.cancel(job["id"])
        raise
    require_success(job)
    return job


def require_success(job: Json) -> None:
    """Raises `HemostatError` with the job's own code unless it succeeded."""
    if job["status"] == "succeeded":
        return
    error = job.get("error")
    if error:
        raise HemostatError(ErrorCode(error["code"]), error["detail"], hint=error.get("hint", ""))
    raise HemostatError(ErrorCode.JOB_NOT_FINISHED, f"job {job['id']} was {job['status']}", hint="submit it again")


def save_page(client: Client, job_id: str, destination: Path) -> Path:
    """Writes the HTML report, whole or not at all."""
    page = client.report_html(job_id)
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(destination)
    return destination.resolve()
