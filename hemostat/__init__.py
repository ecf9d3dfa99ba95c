"""Hemostat from Python. `hemostat.compare` measures what the command `hemostat compare` measures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from app.cli.configuration import settings as configured
from app.cli.output import err
from app.cli.requesting import request_for
from app.cli.service import connect_or_start
from app.cli.watching import run_to_end
from app.commands.options import options_of
from app.commands.recipes import parse_recipe
from app.contracts.errors import HemostatError
from app.kinds.compare.report import CompareReport
from app.kinds.registry import KINDS

__all__ = ["CompareReport", "HemostatError", "compare"]

Model = str | PathLike[str]


def compare(
    reference: Model,
    candidate: Model | None = None,
    *,
    recipe: Sequence[str | Mapping[str, Any]] = (),
    url: str | None = None,
    download: bool = False,
    **options: Any,
) -> CompareReport:
    """Compares the next-token distributions of two models and returns the report. Progress goes to standard error.

    The running service does it; if none runs, one is started and ended again. A model is an alias, a folder, or a hub
    id of the local cache. `candidate`: None for the reference, which `recipe` modifies; its steps are written as on the
    command line ("quantize.rtn:bits=4") or as mappings. `download`: fetch what the cache lacks. `options`: those of the
    command by name (`text="my.jsonl"`, `window=128`); a mapping is the request's field as JSON.

    Raises `HemostatError` with the code, detail and hint that the command shows, and TypeError for an unknown option.
    """
    kind = KINDS["compare"]
    fields = {name: dict(value) for name, value in options.items() if isinstance(value, Mapping)}
    words = {name: _written(value) for name, value in options.items() if name not in fields}
    _require_known(fields, set(kind.request.model_fields))
    _require_known(words, {option.name for option in options_of(kind.request)})
    steps = [step if isinstance(step, str) else json.dumps(dict(step)) for step in recipe]
    settings = configured()
    body = request_for(
        kind,
        fspath(reference),
        None if candidate is None else fspath(candidate),
        parse_recipe(steps),
        options=words,
        fields=[f"{name}={json.dumps(value)}" for name, value in fields.items()],
        settings=settings,
        url=url,
        fetch=download,
    )
    with connect_or_start(url, settings, err, body) as client:
        job = run_to_end(client, body, err)
        return CompareReport.model_validate(client.report(job["id"]))


def _written(value: Any) -> Any:
    return fspath(value) if isinstance(value, PathLike) else value


def _require_known(given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise TypeError(f"compare() got an unexpected option {name!r}; it takes {', '.join(sorted(known))}")
