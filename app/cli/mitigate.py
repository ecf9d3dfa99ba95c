"""What follows a mitigation: its recipe is saved, and the commands that use it are shown."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from app.cli.client import Client
from app.cli.fetching import fetch
from app.contracts.errors import HemostatError
from app.kinds.mitigate.onwards import CARD_FILE, RECIPE_FILE, commands, fetching
from app.kinds.mitigate.report import MitigateReport
from app.reports.reading import parse

Json = dict[str, Any]


def next_commands(found: Json, url: str | None) -> list[str]:
    """What to do with what the report recommends, from the files of its job."""
    return fetching(_report(found), options=_where(url))


def _report(found: Json) -> MitigateReport:
    """Raises as `parse`."""
    report = parse(found)
    assert isinstance(report, MitigateReport)  # noqa: S101 - the kind says so
    return report


def _where(url: str | None) -> str:
    """The option that names the service, where it is not the one of the environment."""
    return "" if url is None or url == os.environ.get("HEMOSTAT_URL") else f" --url {shlex.quote(url)}"


def onwards(client: Client, found: Json, page: Path, *, url: str | None) -> list[str]:
    """Saves the recommended recipe and its model card beside the page, and shows what to do with them."""
    report = _report(found)
    if not report.recommended:
        return []
    where = _where(url)
    everything = f"hemostat jobs fetch {shlex.quote(report.job)}{where}"
    try:
        recipe, _ = fetch(client, report.job, page.with_name(f"{page.stem}_files"), (RECIPE_FILE, CARD_FILE))
    except HemostatError as error:
        return [f"The recipe could not be saved: {error.detail}", f"  {everything}"]
    return [
        f"Recipe: {recipe}, with its model card, {CARD_FILE}, beside it",
        "What to do with it; deploy and fetch need a service that runs (hemostat up):",
        *(f"  {line}" for line in commands(report, str(recipe), options=where)),
        f"  {everything}  # all that the job left, the repair as a LoRA and a checkpoint where there is one",
    ]
