"""`hemostat surface`: turn two knobs of a recipe together."""

from __future__ import annotations

from typing import Annotated, Any

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
    finite,
    number,
)
from app.contracts.errors import ErrorCode, HemostatError

Json = dict[str, Any]


def surface(
    reference: Reference,
    recipe: SweptRecipe,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            help="Twice: [STEP.]FIELD=VALUES, a list 0.1,0.2,0.3 or a range FROM..TO:POINTS; steps are counted from 0. "
            'Not needed where a recipe in JSON has {"sweep": ...}.'
        ),
    ] = None,
    candidate: Candidate = None,
    contour: Annotated[
        str | None,
        typer.Option(
            help="The loss that must not be passed: kl=NATS, perplexity_ratio=RATIO or perplexity=PPL. Default: where "
            "moderate damage begins."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            help="Nats a token of interaction that count as none: damages add up where the interval lies within. "
            "Default: where mild damage begins.",
        ),
    ] = None,
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Measure every setting with the two steps exchanged, too.")
    ] = False,
    storage: Annotated[
        str, typer.Option(help="How bytes are counted: sparse (zeros of pruned weights not stored) or dense.")
    ] = "sparse",
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
    """Measure two knobs together: do their damages add up, how far may both go, and which path is cheapest."""
    configured = settings()
    request = swept_request(
        "surface",
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
    request |= {"orders": "both" if both_orders else "as given", "storage": storage}
    if contour is not None:
        request["contour"] = _contour(contour)
    if margin is not None:
        request["margin"] = margin
    require_knobs(request)
    measure(request, configured, url=url, output=output, dry_run=dry_run, as_json=as_json)


def _contour(text: str) -> Json:
    measure_name, equals, level = text.partition("=")
    if not equals:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--contour {text}: not MEASURE=LEVEL",
            hint="for example: --contour kl=0.05, --contour perplexity_ratio=1.05, --contour perplexity=7.5",
        )
    return {"measure": measure_name, "level": number(measure_name, level, "--contour")}
