"""The command of a kind of job: its options come from its request's fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from inspect import Parameter, Signature, cleandoc
from pkgutil import resolve_name
from typing import Annotated, Any, Final

import typer

from app.cli.configuration import settings
from app.cli.measuring import measure
from app.cli.naming import alias_of
from app.cli.options import AsJson, Details, Download, DryRun, Output, Url, finite
from app.cli.output import Rule
from app.commands.knobs import turn_all
from app.commands.options import Written, options_of, request_of, with_fields
from app.commands.recipes import parse_recipe
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.kind import Kind
from app.settings import Settings

Json = dict[str, Any]
_MODEL: Final = "an alias, a folder, or a hub id (org/name, org/name@revision) of the local cache"
_MODELS: Final = {
    "reference": Annotated[str | None, typer.Argument(metavar="REFERENCE", help=f"The unmodified model: {_MODEL}.")],
    "candidate": Annotated[
        str | None,
        typer.Argument(
            metavar="CANDIDATE", help="The modified model, in the same forms. Default: REFERENCE, modified by --recipe."
        ),
    ],
    "reference_option": Annotated[str | None, typer.Option("--reference", "-r", help="The same as REFERENCE.")],
    "candidate_option": Annotated[str | None, typer.Option("--candidate", "-c", help="The same as CANDIDATE.")],
    "recipe": Annotated[
        list[str] | None,
        typer.Option(
            help="One step that modifies the candidate, repeated for more: quantize.rtn:bits=4,layers=0+1 (+ makes "
            "lists), or JSON, or @file.json."
        ),
    ],
}
_KNOB: Final = Annotated[
    list[str] | None,
    typer.Option(
        help="[STEP.]FIELD=VALUES, a list 0.1,0.2,0.3 or a range FROM..TO:POINTS; STEP 1 is the first. Not needed "
        'if a recipe in JSON has {"sweep": ...}.'
    ),
]
_SET: Final = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=JSON: a request field that has no option; repeated for more.")
]
_SHARED: Final[dict[str, tuple[Any, Any]]] = {
    "output": (Output, None),
    "download": (Download, False),
    "dry_run": (DryRun, False),
    "url": (Url, None),
    "details": (Details, False),
    "as_json": (AsJson, False),
}


def submitting(kind: Kind) -> Callable[..., None]:
    """The function of a kind's command, with a signature that typer reads."""

    def command(**given: Any) -> None:
        _submit(kind, given)

    command.__doc__ = cleandoc(kind.request.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    command.__signature__ = Signature(list(_parameters(kind)))  # type: ignore[attr-defined]
    return command


def _parameters(kind: Kind) -> Iterator[Parameter]:
    def parameter(name: str, annotation: Any, default: Any = None) -> Parameter:
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

    for name, annotation in _MODELS.items():
        yield parameter(name, annotation)
    if kind.knobs:
        yield parameter("knob", _KNOB)
    for option in options_of(kind.request):
        yield parameter(option.name, _annotation(option), False if option.switch else None)
    yield parameter("set_", _SET)
    if kind.rules:
        told = "Exit 1 if the report is this bad or worse, 3 if the measurement cannot decide."
        yield parameter("fail_on", Annotated[kind.rules | None, typer.Option(help=told)])
    for name, (annotation, default) in _SHARED.items():
        yield parameter(name, annotation, default)


def _annotation(option: Written) -> Any:
    value: Any = list[option.type] if option.repeated else option.type  # type: ignore[name-defined]
    flag = option.flag if option.switch or option.type is not bool else f"{option.flag}/--no-{option.flag[2:]}"
    check = finite if option.type is float and not option.repeated else None
    return Annotated[value if option.switch else value | None, typer.Option(flag, help=option.help, callback=check)]


def _submit(kind: Kind, given: Json) -> None:
    configured, url = settings(), given["url"]
    options, steps = request_of(kind.request, given), parse_recipe(given["recipe"] or [])
    if kind.knobs:
        turn_all(kind, steps, given["knob"] or [])
    reference = _one(given, "reference")
    if reference is None:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "REFERENCE is missing: name the unmodified model",
            hint=(
                f"hemostat {kind.name} REFERENCE CANDIDATE; instead of CANDIDATE you can give --recipe "
                "quantize.rtn:bits=4"
            ),
        )
    candidate = _one(given, "candidate")
    body = {
        "kind": kind.name,
        "reference": {"model": reference},
        "candidate": {"model": reference if candidate is None else candidate, "recipe": steps},
        **options,
    }
    body = with_fields(body, given["set_"] or [])
    _require_change(body, candidate)  # before a new alias is written
    body = _named(body, configured, url=url, fetch=given["download"])
    level = given.get("fail_on")
    measure(
        body,
        configured,
        rule=Rule(level, lambda found: kind.call("judge", found, level)) if level else None,
        url=url,
        output=given["output"],
        dry_run=given["dry_run"],
        as_json=given["as_json"],
        details=given["details"],
        onwards=partial(resolve_name(kind.onwards), url=url) if kind.onwards else None,
    )


def _require_change(body: Json, candidate: str | None) -> None:
    if body["candidate"] == body["reference"] | {"recipe": []} and not body.get("self_check"):
        given = "no candidate and no recipe is given" if candidate is None else "CANDIDATE is the same as REFERENCE"
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{given}: the candidate would be the reference unchanged",
            hint="give another CANDIDATE, or --recipe quantize.rtn:bits=4; --self-check compares the model with itself",
        )


def _one(given: Json, side: str) -> str | None:
    """The model of a side, which has two spellings."""
    named: list[str] = [one for one in (given[side], given[f"{side}_option"]) if one is not None]
    if "" in named:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{side.upper()} is empty",
            hint="name a model; if a shell variable should name it, that variable is empty",
        )
    if len(named) > 1:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the {side} is given twice: {named[0]} and --{side} {named[1]}",
            hint=f"leave --{side} out, or name both models by options",
        )
    return named[0] if named else None


def _named(body: Json, configured: Settings, *, url: str | None, fetch: bool) -> Json:
    """The request with an alias for each model."""

    def named(side: Any) -> Any:
        if not isinstance(side, dict) or not isinstance(side.get("model"), str):
            return side  # the request's own check says what is wrong with it
        return side | {"model": alias_of(side["model"], configured, url=url, fetch=fetch)}

    body |= {side: named(body[side]) for side in ("reference", "candidate")}
    if isinstance(candidates := body.get("candidates"), list):
        body["candidates"] = [named(one) for one in candidates]
    return body
