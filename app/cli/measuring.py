"""What commands that submit a job do alike: estimate a job, or run it, show its report and save its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from app.cli.client import Client
from app.cli.estimates import print_estimate
from app.cli.finite import require_json
from app.cli.output import err, out, print_json
from app.cli.service import connect_or_start, report_path
from app.cli.watching import check_writable, run_to_end, save_page
from app.settings import Settings
from app.web.terminal import render_terminal

Json = dict[str, Any]


def measure(
    request: Json,
    configured: Settings,
    verdict: Callable[[Json], int],
    *,
    url: str | None,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    onwards: Callable[[Client, Json, Path], Sequence[str]] | None = None,
) -> None:
    """Ends with the exit status that `verdict` gives the report; a dry run prints its estimate and returns.

    `onwards` is given service, report and where the page goes, while the service is there; what it returns is said
    after all else, a line each.
    """
    require_json(request)  # whether a service runs or is started for it
    if _changes_nothing(request):
        why = "neither --recipe nor another --candidate is given"
        err.print(f"[yellow]note[/] {why}: the model is compared with itself")
    if output:
        check_writable(output)
    with connect_or_start(url, configured, err, request) as client:
        if dry_run:
            print_estimate(client.submit(request | {"dry_run": True}), as_json=as_json)
            return
        job = run_to_end(client, request, err)
        found = client.report(job["id"])
        html = client.report_html(job["id"])
        page = output or report_path(configured, job["id"])
        told = onwards(client, found, page) if onwards else ()
    if as_json:
        print_json(found)
    else:
        render_terminal(found, out)
    status = verdict(found)
    page = save_page(html, page)
    console = err if as_json else out
    console.print(f"Report: {escape(str(page))}", soft_wrap=True)
    for line in told:
        console.print(line, markup=False, soft_wrap=True)
    raise SystemExit(status)


def _changes_nothing(request: Json) -> bool:
    """Whether the only candidate is the reference as it is."""
    candidate = request["candidate"]
    same = not candidate["recipe"] and candidate["model"] == request["reference"]["model"]
    return same and not request.get("candidates")
