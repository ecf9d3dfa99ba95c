"""`hemostat demo`: from nothing to a verdict."""

from __future__ import annotations

from app.cli.models import ensure_demo_model
from app.cli.output import err, out, print_json
from app.cli.service import report_path, start
from app.cli.watching import run_to_end, save_page
from app.reports.terminal import render_terminal
from app.settings import Settings

RECIPE = {"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}


def demo(settings: Settings, *, as_json: bool, details: bool = False) -> None:
    """Compares the demo model with itself at 4 bits (round to nearest) over the shipped text and shows the verdict."""
    alias, _ = ensure_demo_model(settings)
    err.print(f"[bold]Is {alias} damaged at 4 bits?[/] Round to nearest, groups of 64, asymmetric; the shipped text.")
    request = {
        "kind": "compare",
        "reference": {"model": alias},
        "candidate": {"model": alias, "recipe": [RECIPE]},
        "text": {"source": "shipped"},
        "metadata": {"origin": "demo"},
    }
    with start(settings, err) as client:
        job = run_to_end(client, request, err)
        report = client.report(job["id"])
        page = save_page(client.report_html(job["id"]), report_path(settings, job["id"]))
    if as_json:
        print_json(report)
        return
    render_terminal(report, out, details=details)
    out.print(f"Report: {page}", soft_wrap=True)
    out.print(
        "[dim]Open this page in a browser. The demo's service has ended; `make up` starts a service that keeps "
        "running.[/]"
    )
