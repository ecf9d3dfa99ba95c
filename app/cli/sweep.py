"""`hemostat sweep`: turn one knob of a recipe, and find how far it may be turned."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.configuration import settings
from app.cli.knobs import require_knobs, swept_request
from app.cli.measuring import measure
from app.cli.options import (
    AllowOverlap,
    AsJson,
    Candidate,
    DryRun,
    Metadata,
    Output,
    Reference,
    SweptRecipe,
    Text,
    Thresholds,
    Url,
    Window,
    number,
    pairs,
)
from app.cli.output import Json
from app.cli.tasks import parse_task
from app.contracts.errors import ErrorCode, HemostatError


def sweep(
    reference: Reference,
    recipe: SweptRecipe,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            help="Once: [STEP.]FIELD=VALUES, a list 0.1,0.2,0.3 or a range FROM..TO:POINTS; steps are counted from 0. "
            'Not needed where a recipe in JSON has {"sweep": ...}.'
        ),
    ] = None,
    candidate: Candidate = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Measure at most so many values, chosen where the threshold's interval narrows most."),
    ] = None,
    bounds: Annotated[
        list[str] | None,
        typer.Option(
            "--bound", help="COEFFICIENT=LOW..HIGH of the fitted form, one side may be empty: b=0.. ; repeated."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="shipped[:ITEMS], or FORMAT:PATH[,key=value], as in `hemostat tasks`: answered at the strongest "
            "settings that are near-lossless by perplexity, until one loses at most 5 % in the mean; repeated for "
            "more. Default: none."
        ),
    ] = None,
    text: Text = None,
    window: Window = 512,
    seed: int = 0,
    thresholds: Thresholds = None,
    metadata_: Metadata = None,
    output: Output = None,
    *,
    allow_overlap: AllowOverlap = False,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model at many settings of one knob: how far damage stays mild, and where the curve turns."""
    configured = settings()
    request = swept_request(
        "sweep",
        reference=reference,
        candidate=candidate,
        recipe=recipe,
        knobs=knob or [],
        text=text,
        window=window,
        seed=seed,
        allow_overlap=allow_overlap,
        thresholds=thresholds,
        metadata=metadata_,
    )
    if budget is not None:
        request["budget"] = budget
    if bounds:
        request["bounds"] = {name: _bound(name, pair) for name, pair in pairs(bounds, "--bound").items()}
    if task:
        request["tasks"] = [_task(one) for one in task]
    require_knobs(request)
    measure(
        request,
        configured,
        url=url,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


def _task(written: str) -> Json:
    parsed = parse_task(written)
    if parsed["source"] == "harness":
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--task {written!r}: a sweep asks no tasks of lm-evaluation-harness",
            hint="`hemostat tasks` asks them, at one setting",
        )
    return parsed


def _bound(name: str, text: str) -> list[float | None]:
    low, dots, high = text.partition("..")
    if not dots:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--bound {name}={text}: not LOW..HIGH",
            hint="for example: --bound b=0.. or --bound s0=0.2..0.6",
        )
    return [number(name, end, "--bound") if end.strip() else None for end in (low, high)]
