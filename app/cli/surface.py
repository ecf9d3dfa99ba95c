"""`hemostat surface`: turn two knobs of a recipe together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import settings
from app.cli.measuring import measure
from app.cli.options import AsJson, Url, number, pairs
from app.cli.output import Exit
from app.cli.recipes import parse_recipe, parse_text
from app.cli.sweep import turn
from app.contracts.errors import ErrorCode, HemostatError

Json = dict[str, Any]


def surface(
    reference: Annotated[str, typer.Option("--reference", "-r", help="Alias of the unmodified model.")],
    recipe: Annotated[
        list[str], typer.Option(help="One step, repeated for more, as in `hemostat compare`; knobs may be left out.")
    ],
    knob: Annotated[
        list[str] | None,
        typer.Option(
            help="Twice: [STEP.]FIELD=VALUES, a list 0.1,0.2,0.3 or a range FROM..TO:POINTS; steps are counted from 0. "
            'Not needed where a recipe in JSON has {"sweep": ...}.'
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option("--candidate", "-c", help="Alias of the model that is modified; default: the reference."),
    ] = None,
    contour: Annotated[
        str | None,
        typer.Option(
            help="The loss that must not be passed: kl=NATS, perplexity_ratio=RATIO or perplexity=PPL. Default: where "
            "moderate damage begins."
        ),
    ] = None,
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Measure every setting with the two steps exchanged, too.")
    ] = False,
    storage: Annotated[
        str, typer.Option(help="How bytes are counted: sparse (zeros of pruned weights not stored) or dense.")
    ] = "sparse",
    text: Annotated[
        str | None,
        typer.Option(
            help="shipped[:DOCUMENTS], self:TOKENS, hub:NAME[:COLUMN], or a file or folder here. Default: the shipped "
            "evaluation text."
        ),
    ] = None,
    window: Annotated[int, typer.Option(help="Tokens a window.")] = 512,
    seed: int = 0,
    thresholds: Annotated[
        list[str] | None, typer.Option("--threshold", help="CLASS=NATS, for example severe=0.3; repeated for more.")
    ] = None,
    metadata_: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option(help="Check everything and estimate the cost; run nothing.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Measure two knobs together: do their damages add up, how far may both go, and which path is cheapest.

    Exit status: 0 where a changed setting is within the loss for sure, 1 where none is, 2 where nothing was measured.
    """
    configured = settings()
    steps = parse_recipe(recipe)
    for one in knob or ():
        turn(steps, one)
    request: Json = {
        "kind": "surface",
        "reference": {"model": reference},
        "candidate": {"model": candidate or reference, "recipe": steps},
        "orders": "both" if both_orders else "as given",
        "storage": storage,
        "text": parse_text(text),
        "window": window,
        "seed": seed,
        "thresholds": {key: number(key, value) for key, value in pairs(thresholds, "--threshold").items()},
        "metadata": pairs(metadata_, "--metadata"),
    }
    if contour is not None:
        request["contour"] = _contour(contour)
    measure(request, configured, _status, url=url, output=output, dry_run=dry_run, as_json=as_json)


def _contour(text: str) -> Json:
    measure_name, equals, level = text.partition("=")
    if not equals:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--contour {text}: not MEASURE=LEVEL",
            hint="for example: --contour kl=0.05, --contour perplexity_ratio=1.05, --contour perplexity=7.5",
        )
    try:
        return {"measure": measure_name, "level": float(level)}
    except ValueError:
        raise HemostatError(ErrorCode.INVALID_REQUEST, f"--contour {text}: {level!r} is not a number") from None


def _status(report: Json) -> Exit:
    """Whether anything but doing nothing lies within the chosen loss."""
    changed = [point for point in report["points"] if point["recipe"]]
    return Exit.PASS if any(point["within"] == "yes" for point in changed) else Exit.FAIL
