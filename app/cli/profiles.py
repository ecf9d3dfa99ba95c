"""`hemostat profiles`: list, show, compare, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from app.cli.configuration import settings
from app.cli.once import Commands
from app.cli.options import AsJson, Url
from app.cli.output import out, print_json
from app.cli.service import connect
from app.kinds.calibrate.calibrators import named
from app.reports import describe
from app.reports import format as fmt

profiles_app = Commands(help="Calibration profiles of a running service.", no_args_is_help=True)
Json = dict[str, Any]


@profiles_app.command("list")
def list_profiles(*, url: Url = None, as_json: AsJson = False) -> None:
    """Profiles, newest first."""
    with connect(url, settings()) as client:
        page = client.profiles()
    if as_json:
        print_json(page)
        return
    table = Table(box=None, header_style="bold")
    for heading in ("version", "calibrator", "model", "saved", "proven", "made"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "version")
    for profile in page["data"]:
        made = datetime.fromtimestamp(profile["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        row = [profile["version"], named(profile["calibrator"]), _model(profile), _saved(profile), _proven(profile)]
        table.add_row(*map(escape, [*row, made]))
    out.print(table if page["data"] else "No profiles.")


@profiles_app.command()
def show(version: str, *, url: Url = None, as_json: AsJson = False) -> None:
    """One profile, with the table of its test."""
    with connect(url, settings()) as client:
        profile = client.profile(version)
    if as_json:
        print_json(profile)
        return
    fit = profile["fit"]
    grid = Table(box=None, show_header=False)
    rows = {
        "version": profile["version"],
        "calibrator": named(profile["calibrator"]),
        "model": _model(profile),
        "reference": fit["reference"]["model"],
        "fitted on": ", ".join(f"{part['name']} {part['tokens']:,} tokens" for part in fit["sets"]) or fit["origin"],
        "proven": _proven(profile),
        "job": profile["job"] or "–",
        "deployment": profile["deployment"] or "–",
        "size": fmt.size(profile["bytes"]),
    }
    for name, value in rows.items():
        grid.add_row(f"[bold]{name}[/]", escape(value))
    out.print(grid)
    test = profile["test"]
    for reason in test["reasons"] if test else []:
        out.print(f"  [bold]not served[/] {escape(reason)}")
    if test:
        out.print(_domains(test))


@profiles_app.command()
def delete(version: str, *, url: Url = None) -> None:
    """Delete a profile that no deployment serves, tries, or would go back to."""
    with connect(url, settings()) as client:
        client.delete_profile(version)
    out.print(f"{escape(version)} is deleted.")


def _mean(mean: Json | None) -> str:
    return "–" if mean is None else str(fmt.estimate(mean["mean"], tuple(mean["ci"]) if mean["ci"] else None))


def _model(profile: Json) -> str:
    candidate = profile["fit"]["candidate"]
    steps = describe.recipe(candidate["recipe"])
    return f"{candidate['model']} · {steps}" if steps else str(candidate["model"])


def _chosen(test: Json) -> Json:
    row: Json = next(row for row in test["table"] if row["chosen"])
    return row


def _saved(profile: Json) -> str:
    share = _chosen(profile["test"])["own"]["saved_share"] if profile["test"] else None
    return "–" if share is None else f"{100 * share:.0f} %"


def _proven(profile: Json) -> str:
    if profile["test"] is None:
        return "in shadow" if profile["fit"]["origin"] == "online" else "no test"
    return "yes" if profile["test"]["passed"] else "no"


def _domains(test: Json) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("domain", "raw KL", "calibrated", "saved"):
        table.add_column(heading, overflow="fold")
    for name, cell in _chosen(test)["domains"].items():
        table.add_row(escape(name), *(_mean(cell[part]) for part in ("raw", "calibrated", "saved")))
    return table
