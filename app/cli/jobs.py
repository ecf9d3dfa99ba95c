"""`hemostat jobs`: list, show, watch, fetch, cancel."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.client import TERMINAL
from app.cli.configuration import settings
from app.cli.fetching import fetch
from app.cli.job_table import print_jobs
from app.cli.once import Commands
from app.cli.options import AsJson, Url
from app.cli.output import Exit, err, out, print_json, show_error
from app.cli.service import connect
from app.cli.watching import error_of, follow
from app.commands.shapes import pairs
from app.contracts.job import Progress
from app.reports import format as fmt
from app.web import listing
from app.web.again import kept
from app.web.progress import told

jobs_app = Commands(help="Jobs of a running service.", no_args_is_help=True)
_ENDED: Final = {"succeeded": "had succeeded", "failed": "had failed", "cancelled": "had been cancelled"}


@jobs_app.command("list")
def list_jobs(
    *,
    status: Annotated[
        str | None, typer.Option(help="One of queued, running, cancelling, succeeded, failed, cancelled.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="One of compare, sweep, surface, attribute, trajectory, tasks, calibrate, mitigate."),
    ] = None,
    candidate: str | None = None,
    metadata_: Annotated[
        list[str] | None,
        typer.Option("--metadata", help=("key=value of the job's metadata; repeated: all must match.")),
    ] = None,
    limit: int = 20,
    after: Annotated[str | None, typer.Option(help="Id of the last job of the previous page.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    metadata = [f"{key}={value}" for key, value in pairs(metadata_, "--metadata").items()]
    filters = {"status": status, "kind": kind, "candidate": candidate, "metadata": metadata, "limit": limit}
    with connect(url, settings()) as client:
        page = client.jobs(**filters, after=after)
    if as_json:
        print_json(page)
        return
    if page["data"]:
        print_jobs(page["data"], out)
    else:
        out.print("No jobs.")
    if page["has_more"]:
        asked = filters if url == os.environ.get("HEMOSTAT_URL") else filters | {"url": url}
        more = f"More: hemostat jobs list{_options(asked)} --after {page['last_id']}"
        out.print(f"[dim]{escape(more)}[/]", soft_wrap=True)


def _options(filters: dict[str, Any]) -> str:
    """What was asked for, as it is written: the next page is one of the same list."""
    written = [
        (name, one) for name, value in filters.items() for one in (value if isinstance(value, list) else [value])
    ]
    return "".join(f" --{name} {shlex.quote(str(one))}" for name, one in written if one is not None)


@jobs_app.command()
def show(job_id: str, *, url: Url = None, as_json: AsJson = False) -> None:
    """One job."""
    with connect(url, settings()) as client:
        job = client.job(job_id)
    _print_job(job, as_json=as_json)


@jobs_app.command()
def watch(job_id: str, *, url: Url = None, as_json: AsJson = False) -> None:
    """Follow a job to its end. Leaving with Ctrl-C does not cancel it."""
    with connect(url, settings()) as client:
        client.require_service()
        job = follow(client, job_id, err)
    _print_job(job, as_json=as_json)
    if job["status"] == "cancelled":
        err.print("The job was cancelled; it has no result.")
    raise SystemExit(Exit.OK if job["status"] == "succeeded" else Exit.FAILED)


@jobs_app.command()
def cancel(job_id: str, *, url: Url = None, as_json: AsJson = False) -> None:
    """Stop a job."""
    with connect(url, settings()) as client:
        before = client.job(job_id)["status"]
        job = client.cancel(job_id)
    if before in TERMINAL:
        err.print(f"nothing was cancelled: the job {_ENDED[before]} before", markup=False)
    _print_job(job, as_json=as_json)


@jobs_app.command("fetch")
def fetch_files(
    job_id: str,
    names: Annotated[list[str] | None, typer.Argument(help="Files to save; default: all files of the job.")] = None,
    *,
    to: Annotated[
        Path | None,
        typer.Option(help=("Folder for the files; default: a folder named after the job, below the current one.")),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Save the files of a job beside its report: recipe, model card, values of every token, a checkpoint."""
    folder = to or Path(job_id)
    with connect(url, settings()) as client:
        saved = fetch(client, job_id, folder, names or ())
    if as_json:
        print_json({"folder": str(folder.resolve()), "files": [path.name for path in saved]})
        return
    for path in saved:
        out.print(f"{escape(str(path))} [dim]{fmt.size(path.stat().st_size)}[/]", soft_wrap=True)
    if not saved:
        out.print("The job left no files.")


def _progress(job: dict[str, Any]) -> str:
    """How far a job is, or how far one got that has no result."""
    if job["status"] in TERMINAL and job["progress"]["phase"] == Progress().phase:
        return "ended before its first phase" if job["attempt"] else "no worker had taken it"
    return told(job["kind"], job["progress"])


def _print_job(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    table = Table(box=None, show_header=False)
    again = kept(job)
    rows = {
        "job": job["id"],
        "kind": job["kind"],
        "status": job["status"],
        **({} if job["status"] == "succeeded" else {"progress": _progress(job)}),
        "reference": job["reference"]["model"],
        "candidate": job["candidate"]["model"],
        "recipe": listing.recipe(job),
        "text": listing.text(job),
        "outcome": listing.outcome(job),
        "attempt": str(job["attempt"]),
        **listing.times(job, time.time()),
        "artifacts": ", ".join(job["artifacts"]) or "–",
        **({"fetch them": f"hemostat jobs fetch {job['id']}"} if job["artifacts"] else {}),
        **({"what is kept": again} if again else {}),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    out.print(table)
    if job["error"]:
        show_error(error_of(job), out)
