"""Decoders, shapings and further candidates of a `trajectory` job as they are written on a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.commands.finite import require_finite
from app.commands.recipes import parse_recipe
from app.contracts.decoding import DECODER, DECODERS, NO_SHAPING, SHAPING, SHAPING_NAMES
from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import listed, suggestion


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


def candidate_word(candidate: Mapping[str, Any]) -> str:
    """A candidate as `parse_candidate` takes it."""
    recipe = candidate.get("recipe")
    return f"{candidate['model']}={json.dumps(recipe)}" if recipe else str(candidate["model"])


def decoder_word(decoder: Mapping[str, Any]) -> str | None:
    """A decoder as `parse_decoder` takes it, without its defaults."""
    return _word(decoder, DECODER)


def shaping_word(shaping: Mapping[str, Any]) -> str | None:
    """A shaping as `parse_shaping` takes it, without its defaults."""
    return _word(shaping, SHAPING)


def _word(written: Mapping[str, Any], kind: TypeAdapter[Any]) -> str | None:
    try:
        known = kind.validate_python(written).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        return None
    values = ",".join(f"{key}={json.dumps(value)}" for key, value in known.items() if key != "name")
    return f"{written['name']}:{values}" if values else str(written["name"])
