"""What commands that submit a job do alike: estimate a job, or run it, show its report and save its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from app.cli.client import Client
from app.cli.output import Rule, err, exit_of, out, print_json
from app.cli.service import connect_or_start, report_path
from app.cli.watching import check_writable, run_to_end, save_page
from app.commands.finite import require_json
from app.contracts.errors import ErrorCode, HemostatError
from app.reports import format as fmt
from app.reports.terminal import render_terminal
from app.settings import Settings

Json = dict[str, Any]


# A field of the answer, what it is called, and in which unit a person reads it; JSON has the bare numbers.
_ROWS: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("documents", "documents", "{:,.0f}".format),
    ("tokens", "tokens", "about {:,.0f}".format),
    ("reference_store_bytes", "reference store", lambda value: f"about {fmt.size(round(value))}"),
    ("checkpoint_bytes", "checkpoints", lambda value: fmt.size(round(value))),
    ("seconds", "time", lambda value: f"about {fmt.duration(value)}"),
)


def print_estimate(estimate: dict[str, Any], *, as_json: bool) -> None:
    """What the job would take, and what that rests on."""
    if as_json:
        print_json(estimate)
        return
    table = Table(title="Estimate (no job was run)", show_header=False)
    for name, label, shown in _ROWS:
        value = estimate[name]
        table.add_row(label, "not known before it is read" if value is None else shown(value))
    out.print(table)
    for assumption in estimate["assumptions"]:
        out.print(f"  [dim]{escape(assumption)}[/]")


def measure(
    request: Json,
    configured: Settings,
    *,
    rule: Rule | None = None,
    url: str | None,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    details: bool = False,
    onwards: Callable[[Client, Json, Path], Sequence[str]] | None = None,
) -> None:
    """Shows the report and ends with the status of the rule's outcome, if there is a rule. A dry run prints its
    estimate.

    `onwards` is given service, report and where the page goes, while the service is there; what it returns is reported
    after all else, a line each.
    """
    if rule and request.get("self_check"):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "--fail-on cannot be combined with --self-check: a self-check measures no model",
            hint="leave one of them out",
        )
    require_json(request)  # whether a service runs or is started for it
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
    judged = rule.outcome(found) if rule else None
    if as_json:
        print_json(found | ({"rule": judged} if judged else {}))
    else:
        render_terminal(found, out, details=details)
    if judged and not as_json:
        out.print(f"Rule: fail on {judged['fail_on']} → [bold]{judged['outcome']}[/]")
    page = save_page(html, page)
    console = err if as_json else out
    console.print(f"Report: {escape(str(page))}", soft_wrap=True)
    for line in told:
        console.print(line, markup=False, soft_wrap=True)
    if judged:
        raise SystemExit(exit_of(judged["outcome"]))
