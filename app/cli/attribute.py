"""`hemostat attribute`: which part of a modified model costs how much, why, and what would mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import settings
from app.cli.measuring import measure
from app.cli.options import AllowOverlap, AsJson, Candidate, Recipe, Reference, SelfCheck, Url, finite, number, pairs
from app.cli.recipes import compared, parse_recipe, parse_text
from app.contracts.errors import ErrorCode, HemostatError


def attribute(
    reference: Reference,
    candidate: Candidate = None,
    recipe: Recipe = None,
    level: Annotated[
        list[str] | None,
        typer.Option(help="Look at parts of this kind only: layer, module, norm, heads, expert; repeated for more."),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Look into these layers only: 0+1+2 or 4-9.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of the text that parts are swapped on.")] = 4096,
    budget: Annotated[
        float,
        typer.Option(
            callback=finite, help="What swaps may cost, in forward passes of the whole model over these tokens."
        ),
    ] = 64.0,
    top: Annotated[int, typer.Option(help="Parts that are looked into: controls, twins, pairs, causes.")] = 8,
    twins: Annotated[int, typer.Option(help="Random directions that an isotropic twin is averaged over.")] = 1,
    text: Annotated[
        str | None, typer.Option(help="shipped[:DOCUMENTS], self:TOKENS, hub:NAME[:COLUMN], or a file or folder here.")
    ] = None,
    window: Annotated[int, typer.Option(help="Tokens a window.")] = 512,
    seed: int = 0,
    thresholds: Annotated[
        list[str] | None, typer.Option("--threshold", help="CLASS=NATS, for example severe=0.3; repeated for more.")
    ] = None,
    metadata_: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")] = None,
    *,
    restore: Annotated[
        bool, typer.Option("--restore/--no-restore", help="Also restore the first parts in the candidate.")
    ] = True,
    internals: Annotated[
        bool, typer.Option("--internals/--no-internals", help="Also compare attention, activations and routing.")
    ] = True,
    self_check: SelfCheck = False,
    allow_overlap: AllowOverlap = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything and estimate the cost; run nothing.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Find out which layers, modules, norms, heads or experts of a modified model do the damage, and why."""
    configured = settings()
    request: dict[str, Any] = {
        "kind": "attribute",
        **compared(reference, candidate, parse_recipe(recipe or []), self_check=self_check),
        "directions": ["swap", "restore"] if restore else ["swap"],
        "tokens": tokens,
        "budget": budget,
        "top": top,
        "twins": twins,
        "internals": internals,
        "text": parse_text(text),
        "window": window,
        "seed": seed,
        "allow_overlap": allow_overlap,
        "thresholds": {key: number(key, value) for key, value in pairs(thresholds, "--threshold").items()},
        "metadata": pairs(metadata_, "--metadata"),
    }
    given = {"levels": level, "layers": None if layers is None else _layers(layers)}
    request |= {name: value for name, value in given.items() if value}
    measure(
        request,
        configured,
        url=url,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


def _layers(text: str) -> list[int]:
    """`0+1+2`, `4-9`, `0+4-9`. Raises INVALID_REQUEST."""
    found: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        whole = first.isdecimal() and (last.isdecimal() if dash else True) and len(first + last) < 10
        if whole and dash and int(last) < int(first):
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--layers {text[:80]!r} holds {part!r}, a range that runs backwards",
                hint=f"write {last}-{first}",
                pointer="/layers",
            )
        if not whole or int(last or first) >= 10_000:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--layers {text[:80]!r} holds {part[:20]!r}, which is neither a layer nor a range",
                hint="write 0+1+2, or 4-9; layers are numbered from 0 to 9999",
                pointer="/layers",
            )
        found += range(int(first), int(last or first) + 1)
    return found
