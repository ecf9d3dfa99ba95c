"""`hemostat trajectory`: what a modification does to text that the model writes itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import settings
from app.cli.finite import require_finite
from app.cli.measuring import measure
from app.cli.options import AllowOverlap, AsJson, Candidate, Recipe, Reference, SelfCheck, Url, number, pairs
from app.cli.recipes import compared, parse_recipe, parse_text
from app.contracts.decoding import DECODERS, NO_SHAPING, SHAPING_NAMES
from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import listed, suggestion


def trajectory(
    reference: Reference,
    candidate: Candidate = None,
    recipe: Recipe = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Another candidate: an alias, or ALIAS=RECIPE with a recipe of one step, such as "
            "smollm2-135m=quantize.rtn:bits=3; repeated for up to three."
        ),
    ] = None,
    decoder: Annotated[
        list[str] | None,
        typer.Option(help="Run this one only, NAME or NAME:key=value,…, for example top_p:p=0.9; repeated for more."),
    ] = None,
    shaping: Annotated[
        list[str] | None,
        typer.Option(
            help="Take distances after this cut only, NAME or NAME:key=value,…, for example top_k:k=20; repeated for "
            "more; none: after no cut. Default: six of them."
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="Prompts are the first tokens of: shipped[:DOCUMENTS], self:TOKENS, hub:NAME[:COLUMN], or a file or "
            "folder here. Default: the shipped evaluation text."
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(help="At most so many prompts, one a document.")] = 32,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 32,
    tokens: Annotated[int, typer.Option(help="Most tokens that are generated.")] = 128,
    chat: Annotated[bool, typer.Option("--chat", help="Put each prompt into the chat template.")] = False,
    seed: int = 0,
    thresholds: Annotated[
        list[str] | None, typer.Option("--threshold", help="CLASS=NATS, for example severe=0.3; repeated for more.")
    ] = None,
    store_text: Annotated[bool | None, typer.Option(help="Keep prompts and texts in the report.")] = None,
    metadata_: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")] = None,
    *,
    self_check: SelfCheck = False,
    allow_overlap: AllowOverlap = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything and estimate the cost; run nothing.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Let both models write on from the same prompts by each decoder, and measure where and how far the texts part."""
    configured = settings()
    request: dict[str, Any] = {
        "kind": "trajectory",
        **compared(reference, candidate, parse_recipe(recipe or []), self_check=self_check),
        "candidates": [parse_candidate(one) for one in also or []],
        "prompts": prompts,
        "prompt_tokens": prompt_tokens,
        "tokens": tokens,
        "chat": chat,
        "seed": seed,
        "allow_overlap": allow_overlap,
        "thresholds": {key: number(key, value) for key, value in pairs(thresholds, "--threshold").items()},
        "store_text": store_text,
        "metadata": pairs(metadata_, "--metadata"),
    }
    if text is not None:
        request["text"] = parse_text(text)
    if decoder:
        request["decoders"] = [parse_decoder(one) for one in decoder]
    if shaping:
        request["shapings"] = [] if shaping == ["none"] else [parse_shaping(one) for one in shaping]
    measure(
        request,
        configured,
        url=url,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


def parse_candidate(written: str) -> dict[str, Any]:
    """`ALIAS` or `ALIAS=RECIPE`, a recipe being one step as `--recipe` takes it, or a JSON list of steps."""
    alias, equals, rest = written.partition("=")
    if not equals:
        return {"model": alias}
    return {"model": alias, "recipe": parse_recipe([rest])}


def parse_decoder(written: str) -> dict[str, Any]:
    """`NAME` or `NAME:key=value,…`. Raises INVALID_REQUEST for a name that no decoder has, or a value that is none."""
    return _parse("--decoder", "decoder", written, DECODERS)


def parse_shaping(written: str) -> dict[str, Any]:
    """The same of a cut after which distances are taken."""
    return _parse("--shaping", "shaping", written, SHAPING_NAMES)


def _parse(option: str, what: str, written: str, names: Sequence[str]) -> dict[str, Any]:
    name, _, rest = written.partition(":")
    if name not in names:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{option} {written!r}: there is no {what} {name!r}" + (f": {NO_SHAPING}" if name in DECODERS else ""),
            hint=listed(names) if name in DECODERS else suggestion(name, names),
        )
    found: dict[str, Any] = {"name": name}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise HemostatError(ErrorCode.INVALID_REQUEST, f"{option} {written!r}: {part!r} is not KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            raise HemostatError(ErrorCode.INVALID_REQUEST, f"{option} {written!r}: {value!r} is not a number") from None
    require_finite(found, f"{option} {written!r}")
    return found
