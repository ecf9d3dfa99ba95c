"""`hemostat mitigate`: find what makes a damaged model better within a budget, and prove it."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client
from app.cli.configuration import settings
from app.cli.fetching import fetch
from app.cli.measuring import measure
from app.cli.options import AllowOverlap, AsJson, Candidate, Recipe, Reference, SelfCheck, Url, finite, number, pairs
from app.cli.recipes import compared, parse_recipe, parse_text
from app.contracts.errors import HemostatError
from app.kinds.mitigate.report import MitigateReport
from app.web.reading import parse
from app.web.sections.onwards import CARD_FILE, RECIPE_FILE, commands, fetching

Json = dict[str, Any]


def mitigate(
    reference: Reference,
    candidate: Candidate = None,
    recipe: Recipe = None,
    max_bytes: Annotated[int | None, typer.Option("--bytes", help="Budget: bytes of the whole model, packed.")] = None,
    bits: Annotated[
        float | None, typer.Option(callback=finite, help="Budget: mean bits a weight of the whole model.")
    ] = None,
    added_latency: Annotated[
        float | None,
        typer.Option(callback=finite, help="Budget: time a token more than the candidate's; 0.1 is a tenth."),
    ] = None,
    treatment: Annotated[
        list[str] | None, typer.Option(help="Try this one only, for example repair.lowrank; repeated for more.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Recipes that are made and measured.")] = 16,
    text: Annotated[
        str | None,
        typer.Option(
            help="To choose by, and to test on: shipped[:DOCUMENTS], self:TOKENS, hub:NAME[:COLUMN], or a file or "
            "folder here. Default: the shipped evaluation text."
        ),
    ] = None,
    test_text: Annotated[str | None, typer.Option(help="To test on; default: three fifths of --text.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="What treatments look at; default: the shipped calibration text.")
    ] = None,
    calibration_windows: Annotated[int, typer.Option(help="Windows that a treatment looks at.")] = 32,
    calibration_window: Annotated[int, typer.Option(help="Tokens of such a window.")] = 512,
    window: Annotated[int, typer.Option(help="Tokens a window that is scored.")] = 512,
    seed: int = 0,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Keep the recommended checkpoint's files as artifacts, too.")
    ] = False,
    thresholds: Annotated[
        list[str] | None, typer.Option("--threshold", help="CLASS=NATS, for example severe=0.3; repeated for more.")
    ] = None,
    store_text: Annotated[bool | None, typer.Option(help="Keep text around the worst tokens in the report.")] = None,
    metadata_: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")] = None,
    *,
    self_check: SelfCheck = False,
    allow_overlap: AllowOverlap = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything and estimate the cost; run nothing.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Find a treatment of a damaged model within a budget, choose it, and prove it on held-out documents."""
    configured = settings()
    budget = {"bytes": max_bytes, "bits_per_weight": bits, "added_latency": added_latency}
    request: dict[str, Any] = {
        "kind": "mitigate",
        **compared(reference, candidate, parse_recipe(recipe or []), self_check=self_check),
        "budget": {name: limit for name, limit in budget.items() if limit is not None},
        "trials": trials,
        "calibration_windows": calibration_windows,
        "calibration_window": calibration_window,
        "window": window,
        "seed": seed,
        "allow_overlap": allow_overlap,
        "export": "checkpoint" if checkpoint else "recipe",
        "thresholds": {key: number(key, value) for key, value in pairs(thresholds, "--threshold").items()},
        "store_text": store_text,
        "metadata": pairs(metadata_, "--metadata"),
    }
    given = {
        "text": None if text is None else parse_text(text),
        "test_text": None if test_text is None else parse_text(test_text),
        "calibration": None if calibration is None else parse_text(calibration),
        "treatments": treatment,
    }
    request |= {name: value for name, value in given.items() if value}
    measure(
        request,
        configured,
        url=url,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
        onwards=partial(_onwards, url=url),
    )


def next_commands(found: Json, url: str | None) -> list[str]:
    """What to do with what a report of a mitigation recommends, from the files of its job; none of other reports."""
    report = parse(found)
    return fetching(report, options=_where(url)) if isinstance(report, MitigateReport) else []


def _where(url: str | None) -> str:
    """The option that names the service, where it is not the one of the environment."""
    return "" if url is None or url == os.environ.get("HEMOSTAT_URL") else f" --url {shlex.quote(url)}"


def _onwards(client: Client, found: Json, page: Path, *, url: str | None) -> list[str]:
    """Saves the recommended recipe and its model card beside the page, and tells what to do with them."""
    report = parse(found)
    if not isinstance(report, MitigateReport) or not report.recommended:
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
