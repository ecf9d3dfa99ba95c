"""`hemostat diff`: candidates of several compare jobs against each other, paired by token, and ranked."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer
from rich.markup import escape

from app.cli.configuration import settings
from app.cli.options import AsJson, Details, Url
from app.cli.output import err, fail, out, print_json
from app.cli.service import connect
from app.cli.watching import check_writable, save_page
from app.contracts.diff_report import DiffReport, Measure
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.difference import blocks, render_difference
from app.kinds.compare.report import CompareReport
from app.reports import describe
from app.reports.reading import parse
from app.reports.terminal import print_blocks, say_on
from app.reports.untrusted import visible

if TYPE_CHECKING:
    from workers.diagnosis.diff.answer import Side

TOKENS: Final = "tokens.parquet"
REPORT: Final = "report.json"


def diff(
    reports: Annotated[
        list[str],
        typer.Argument(
            help="Two or more compare jobs: ids of the running service, or folders (or report.json files) with "
            "tokens.parquet beside the report."
        ),
    ],
    by: Annotated[str, typer.Option(help=f"What ranks: {', '.join(get_args(Measure))}.")] = "kl",
    *,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare reports that are not comparable, and label the result.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where an HTML page goes.")] = None,
    url: Url = None,
    details: Details = False,
    as_json: AsJson = False,
) -> None:
    """Show which candidate is better, and how sure that is: paired differences on the same tokens, with intervals.

    Reports are compared only if tokenizer, text, windows, dtype, engine, reference and scored positions agree.
    """
    try:
        if output is not None:
            check_writable(output)
        found = _answer(reports, by, anyway=anyway, seed=seed, url=url)
        page = None if output is None else save_page(render_difference(found, seed=seed), output)
    except HemostatError as error:
        fail(error, as_json=as_json)
    if as_json:
        if found.label:
            err.print(f"[bold yellow]{escape(found.label)}[/]", soft_wrap=True)
        print_json(json.loads(found.model_dump_json()))
    else:
        print_blocks(blocks(found, seed=seed), out, say_on(out), details=details, more="add --details")
    if page is not None:
        (err if as_json else out).print(f"Page: {escape(str(page))}", soft_wrap=True)


def _answer(names: Sequence[str], by: str, *, anyway: bool, seed: int, url: str | None) -> DiffReport:
    if by not in get_args(Measure):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--by {by[:64]!r} is not a measure",
            hint=f"one of {', '.join(get_args(Measure))}",
        )
    if len(names) < 2:
        raise HemostatError(ErrorCode.INVALID_REQUEST, "a difference needs two reports", hint="name two or more")
    try:
        # Late: they need numpy, scipy and pyarrow, which the front end does without.
        from workers.diagnosis.diff.answer import compare_reports
    except ModuleNotFoundError as error:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"{error.name} is not installed, and token differences need it.",
            hint="Install the extra worker-cpu or worker-gpu.",
        ) from error
    with tempfile.TemporaryDirectory(prefix="hemostat-diff-") as folder:
        sides = [_side(name, Path(folder), url) for name in names]
    seen: dict[str, str] = {}
    for name, side in zip(names, sides, strict=True):
        if (first := seen.setdefault(side.report.job, name)) != name or names.count(name) > 1:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{first} and {name} are the same job, {side.report.job}"
                if first != name
                else f"{name} is given twice",
                hint="name each report once",
            )
    return compare_reports(sides, by=by, anyway=anyway, seed=seed)


def _side(name: str, folder: Path, url: str | None) -> Side:
    from workers.diagnosis.diff.answer import Side
    from workers.diagnosis.diff.tokens import read

    path = Path(name)
    local = path.exists()
    if local:
        file = path / REPORT if path.is_dir() else path
        report, tokens = _compared(_json(file), name), file.with_name(TOKENS)
    elif "/" in name:  # in no job's id, and of a service it would ask for another route
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"there is no file or folder {name}",
            hint=f"give a job's id, or a folder with {REPORT} and {TOKENS}",
        )
    else:
        with connect(url, settings()) as client:
            report = _compared(_of_job(client.report, name), name)
            tokens = folder / f"{len(list(folder.iterdir()))}.parquet"
            tokens.write_bytes(client.artifact(name, TOKENS))
    return Side(visible(describe.model(report.provenance.candidate)), report, read(tokens, name=name))


def _compared(data: dict[str, Any], name: str) -> CompareReport:
    report = parse(data)
    if not isinstance(report, CompareReport):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{name} is a report of kind {report.kind}: only reports of compare jobs have token values",
            hint="run `hemostat compare` with its recipe",
        )
    return report


def _of_job(fetch: Any, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = fetch(name)
    except HemostatError as error:
        if error.code not in {ErrorCode.JOB_NOT_FOUND, ErrorCode.UNAVAILABLE}:
            raise
        raise HemostatError(
            error.code,
            f"{name} is neither a file, nor a folder, nor a job of the service: {error.detail}",
            hint=error.hint or "see `hemostat jobs list`",
        ) from error
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the report {file} cannot be read: {why}",
            hint=f"give a job's id, or a folder with {REPORT} and {TOKENS}",
        ) from None
    return data if isinstance(data, dict) else {}
