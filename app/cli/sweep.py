"""`hemostat sweep`: turn one knob of a recipe, and find how far it may be turned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import settings
from app.cli.measuring import measure
from app.cli.options import AsJson, Url, number, pairs
from app.cli.output import Exit
from app.cli.recipes import parse_recipe, parse_text
from app.contracts.errors import ErrorCode, HemostatError

Json = dict[str, Any]
_EXAMPLES = "for example: --knob sparsity=0.1,0.3,0.5, --knob bits=8..2:7, --knob 1.rank=8,16 (of step 1)"
_RANGE = re.compile(r"(?P<low>.+?)\.\.(?P<high>.+):(?P<points>\d+)")


def sweep(
    reference: Annotated[str, typer.Option("--reference", "-r", help="Alias of the unmodified model.")],
    recipe: Annotated[
        list[str], typer.Option(help="One step, repeated for more, as in `hemostat compare`; the knob may be left out.")
    ],
    knob: Annotated[
        str | None,
        typer.Option(
            help="[STEP.]FIELD=VALUES: a list, 0.1,0.2,0.3, or a range, FROM..TO:POINTS; steps are counted from 0. Not "
            'needed where a recipe in JSON has {"sweep": ...}.'
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option("--candidate", "-c", help="Alias of the model that is modified; default: the reference."),
    ] = None,
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
    """Measure a model at many settings of one knob: how far damage stays mild, and where the curve turns.

    Exit status: 0 where some setting stays mild, 1 where none does, 2 where nothing was measured.
    """
    configured = settings()
    steps = parse_recipe(recipe)
    if knob is not None:
        turn(steps, knob)
    request: Json = {
        "kind": "sweep",
        "reference": {"model": reference},
        "candidate": {"model": candidate or reference, "recipe": steps},
        "text": parse_text(text),
        "window": window,
        "seed": seed,
        "thresholds": {key: number(key, value) for key, value in pairs(thresholds, "--threshold").items()},
        "metadata": pairs(metadata_, "--metadata"),
    }
    if budget is not None:
        request["budget"] = budget
    if bounds:
        request["bounds"] = {name: _bound(pair) for name, pair in pairs(bounds, "--bound").items()}
    measure(
        request,
        configured,
        lambda found: Exit.PASS if (found["largest_mild"] or {}).get("largest") is not None else Exit.FAIL,
        url=url,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


def turn(steps: list[Json], knob: str) -> None:
    """Writes a knob into its step, as a request writes it. Raises `HemostatError(INVALID_REQUEST)`."""
    name, equals, values = knob.partition("=")
    step, _, field = name.strip().rpartition(".")
    if not equals or not field or (step and not step.isdigit()):
        raise _refused(f"--knob {knob}: not [STEP.]FIELD=VALUES")
    if not step and len(steps) > 1:
        raise _refused(f"--knob {knob}: the recipe has {len(steps)} steps, and it does not say which")
    index = int(step or 0)
    if index >= len(steps):
        raise _refused(f"--knob {knob}: the recipe has {len(steps)} steps, and none of number {index}")
    steps[index][field] = {"sweep": _values(values, knob)}


def _values(text: str, knob: str) -> Any:
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        return [_value(part) for part in text.split(",") if part.strip()]
    try:
        low, high = (json.loads(found[end]) for end in ("low", "high"))
    except json.JSONDecodeError:
        raise _refused(f"--knob {knob}: the ends of the range are no numbers") from None
    return {"from": low, "to": high, "points": int(found["points"])}


def _value(text: str) -> Any:
    if "+" in text:
        return [_value(part) for part in text.split("+")]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def _bound(text: str) -> list[float | None]:
    low, dots, high = text.partition("..")
    if not dots:
        raise _refused(f"--bound {text}: not LOW..HIGH", "for example: --bound b=0.. or --bound s0=0.2..0.6")
    return [number("--bound", end) if end.strip() else None for end in (low, high)]


def _refused(detail: str, hint: str = _EXAMPLES) -> HemostatError:
    return HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint)
