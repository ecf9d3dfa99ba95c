"""`hemostat schema` and `hemostat errors`: what reports and error codes mean. No service is needed."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.options import AsJson
from app.cli.output import out, print_json
from app.contracts.errors import ErrorCode
from app.contracts.report import SCHEMA
from app.error_guide import explained
from app.kinds.registry import KINDS

Json = dict[str, Any]


def report_schema(kind: str) -> Json:
    """JSON Schema (Draft 2020-12) of a report of this kind, as the service returns it.

    Objects are open: a reader ignores a field that it does not know.
    """
    generated = KINDS[kind].report.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:hemostat:report:1:{kind}",
        "title": f"Hemostat report, schema {SCHEMA}, kind {kind}",
        **{key: value for key, value in _opened(generated).items() if key != "title"},
        # The contract has defaults for both, yet every report has them.
        "required": ["schema", "kind", *generated["required"]],
    }


def _opened(node: Any, *, names: bool = False) -> Any:
    """Without closed objects and generated titles. `names`: the keys are names of fields, not keywords."""
    if isinstance(node, list):
        return [_opened(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _opened(value, names=not names and key in {"properties", "$defs"})
        for key, value in node.items()
        if names or not (key == "title" or (key == "additionalProperties" and value is False))
    }


def schema(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}. Default: all, by kind.")] = None,
) -> None:
    """Print the JSON Schema (Draft 2020-12) of the reports of a kind of job."""
    if kind is None:
        print_json({name: report_schema(name) for name in KINDS})
        return
    if kind not in KINDS:
        raise typer.BadParameter(f"There is no kind {kind!r}. Give one of {', '.join(KINDS)}.")
    print_json(report_schema(kind))


def errors(
    code: Annotated[str | None, typer.Argument(help="The code of an error. Default: list every code.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Explain an error code: what it means and what to do."""
    found = [explained(one) for one in ([code] if code else ErrorCode)]
    if as_json:
        print_json(found[0] if code else found)
    elif code:
        out.print(f"[bold]{code}[/]: {found[0]['title']}.", soft_wrap=True)
        out.print(f"[bold]what to do:[/] {found[0]['hint']}", soft_wrap=True)
    else:
        table = Table("code", "meaning", box=None, header_style="bold", pad_edge=False)
        for one in found:
            table.add_row(one["code"], one["title"])
        out.print(table)
