"""The request of a job as a person names it: models by alias, folder or hub id, steps of a recipe, options by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.cli.naming import alias_of
from app.commands.options import request_of, with_fields
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.kind import Kind
from app.settings import Settings

Json = dict[str, Any]


def request_for(
    kind: Kind,
    reference: str,
    candidate: str | None,
    steps: Sequence[Json],
    *,
    options: Mapping[str, Any],
    fields: Sequence[str] = (),
    settings: Settings,
    url: str | None,
    fetch: bool,
) -> Json:
    """The body of a job, with an alias for each model. `candidate`: None for the reference, which `steps` modify.
    `options`: by the names of the command's. `fields`: each FIELD=JSON. `fetch`: download what the local hub cache
    lacks.

    Raises `HemostatError`: INVALID_REQUEST for an option that cannot be read and for a candidate that would be the
    reference unchanged, and what `alias_of` raises.
    """
    body = {
        "kind": kind.name,
        "reference": {"model": reference},
        "candidate": {"model": reference if candidate is None else candidate, "recipe": list(steps)},
        **request_of(kind.request, options),
    }
    body = with_fields(body, list(fields))
    _require_change(body, candidate)  # before a new alias is written
    return _named(body, settings, url=url, fetch=fetch)


def _require_change(body: Json, candidate: str | None) -> None:
    if body["candidate"] == body["reference"] | {"recipe": []} and not body.get("self_check"):
        given = "no candidate and no recipe is given" if candidate is None else "CANDIDATE is the same as REFERENCE"
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{given}: the candidate would be the reference unchanged",
            hint="give another CANDIDATE, or --recipe quantize.rtn:bits=4; --self-check compares the model with itself",
        )


def _named(body: Json, settings: Settings, *, url: str | None, fetch: bool) -> Json:
    """The request with an alias for each model."""

    def named(side: Any) -> Any:
        if not isinstance(side, dict) or not isinstance(side.get("model"), str):
            return side  # the request's own check says what is wrong with it
        return side | {"model": alias_of(side["model"], settings, url=url, fetch=fetch)}

    body |= {side: named(body[side]) for side in ("reference", "candidate")}
    if isinstance(candidates := body.get("candidates"), list):
        body["candidates"] = [named(one) for one in candidates]
    return body
