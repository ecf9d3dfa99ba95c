"""`hemostat calibrate`: fit a correction of a modified model, choose it, and prove it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import settings
from app.cli.measuring import measure
from app.cli.options import AllowOverlap, AsJson, Candidate, Recipe, Reference, SelfCheck, Url, finite, number, pairs
from app.cli.recipes import compared, parse_recipe, parse_text


def calibrate(
    reference: Reference,
    candidate: Candidate = None,
    recipe: Recipe = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="To fit and choose by: calibration, shipped[:DOCUMENTS], self:TOKENS, hub:NAME[:COLUMN], or a file or "
            "folder here. Default: the shipped calibration text."
        ),
    ] = None,
    test_text: Annotated[
        str | None,
        typer.Option(help="To test on; default: the shipped evaluation text, or a share of --text."),
    ] = None,
    fit_domain: Annotated[
        list[str] | None, typer.Option(help="Fit these domains of the text only; repeated for more.")
    ] = None,
    calibrator: Annotated[
        list[str] | None, typer.Option(help="What to fit, for example lowrank+confidence; repeated for more.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Fit on at most so many tokens.")] = 25_000,
    tolerance: Annotated[
        float, typer.Option(callback=finite, help="Share of its raw KL by which a domain's limit may rise.")
    ] = 0.005,
    window: Annotated[int, typer.Option(help="Tokens a window.")] = 512,
    seed: int = 0,
    deployment: Annotated[
        str | None, typer.Option(help="Serve the profile there if it passes: a deployment's name or id.")
    ] = None,
    thresholds: Annotated[
        list[str] | None, typer.Option("--threshold", help="CLASS=NATS, for example severe=0.3; repeated for more.")
    ] = None,
    metadata_: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")] = None,
    *,
    self_check: SelfCheck = False,
    allow_overlap: AllowOverlap = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything and estimate the cost; run nothing.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Fit corrections of a modified model towards its original, choose one, and prove it on held-out documents."""
    configured = settings()
    request: dict[str, Any] = {
        "kind": "calibrate",
        **compared(reference, candidate, parse_recipe(recipe or []), self_check=self_check),
        "tokens": tokens,
        "tolerance": tolerance,
        "window": window,
        "seed": seed,
        "allow_overlap": allow_overlap,
        "thresholds": {key: number(key, value) for key, value in pairs(thresholds, "--threshold").items()},
        "metadata": pairs(metadata_, "--metadata"),
    }
    given = {
        "text": None if text is None else parse_text(text),
        "test_text": None if test_text is None else parse_text(test_text),
        "fit_domains": fit_domain,
        "calibrators": calibrator,
        "deployment": deployment,
    }
    request |= {name: value for name, value in given.items() if value}
    measure(
        request,
        configured,
        url=url,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )
