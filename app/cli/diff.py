"""`hemostat diff`: candidates of several compare jobs against each other, paired by token, and ranked."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.cli.configuration import settings
from app.cli.options import AsJson, Url
from app.cli.output import err, fail, out, print_json
from app.cli.service import connect
from app.cli.watching import check_writable, save_page
from app.contracts.diff_report import Difference, DiffReport, Measure, Pair
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.report import CompareReport
from app.web import describe
from app.web import format as fmt
from app.web.difference import render_difference
from app.web.reading import parse
from app.web.sections.difference import NAMES, classes_note, p_value, rank, slice_name, ties
from app.web.untrusted import visible

if TYPE_CHECKING:
    from workers.diagnosis.diff.answer import Side

TOKENS: Final = "tokens.parquet"
REPORT: Final = "report.json"
_COLOURS: Final = {
    "better": "green",
    "worse": "red",
    "no difference shown": "yellow",
    "cannot be judged": "dim",
    "equal": "cyan",
}


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
    as_json: AsJson = False,
) -> None:
    """Which candidate is better, and is it sure: paired differences on the same tokens, with intervals.

    Reports are compared only where tokenizer, text, windows, dtype, engine, reference and scored positions agree.
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
        _print(found)
    if page is not None:
        (err if as_json else out).print(f"Page: {escape(str(page))}", soft_wrap=True)


def _answer(names: Sequence[str], by: str, *, anyway: bool, seed: int, url: str | None) -> DiffReport:
    if by not in get_args(Measure):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"--by {by[:64]!r} is no measure", hint=f"one of {', '.join(get_args(Measure))}"
        )
    if len(names) < 2:
        raise HemostatError(ErrorCode.INVALID_REQUEST, "one report alone has no difference", hint="name two or more")
    try:
        # Late: they need numpy, scipy and pyarrow, which the front end does without.
        from workers.diagnosis.diff.answer import compare_reports
    except ModuleNotFoundError as error:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"{error.name} is not installed, and differences by token need it.",
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
            f"{name} is a report of kind {report.kind}: only reports of compare jobs are compared by token",
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
            f"{name} is neither a file nor a folder here, nor a job that can be asked for: {error.detail}",
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


# --- for people


def _print(found: DiffReport) -> None:
    if found.label:
        out.print(f"[bold yellow]{escape(found.label)}[/]", soft_wrap=True)
        for mismatch in found.mismatches:
            one, other = mismatch.reports
            line = f"  {mismatch.what}: {one} {visible(mismatch.one)}, {other} {visible(mismatch.other)}"
            out.print(Text(line), soft_wrap=True)
        out.print()
    out.print(Text(found.verdict, style="bold"))
    out.print(Text(f"{fmt.count(found.tokens)} tokens of {fmt.count(found.documents)} documents, paired"))
    out.print()
    out.print(_ranking(found))
    if len(found.pairs) == 1:
        out.print(_differences(found.pairs[0]))
        for kind, rows in _kinds(found.pairs[0]):
            if rows:
                out.print(_slices(kind, rows, found.pairs[0]))
    else:
        out.print(_pairs(found))
        _print_shown(found)
    if told := classes_note(found):
        out.print(Text(f"Token classes: {told}"))
    if told := ties(found):
        out.print(Text(f"Ties: {told}"))
    for warning in found.warnings:
        out.print(Text.assemble(("Warning: ", "bold"), visible(warning)))
    out.print(Text(f"Method: {found.method}.", style="dim"))


def _ranking(found: DiffReport) -> Table:
    columns = [("Rank", False), ("", False), ("Candidate", False)]
    columns += [(name, True) for name in ("Value", "95 % interval", "PPL", "Size")]
    table = _table(f"Ranking by {NAMES[found.by]}", columns)
    for row in found.ranking:
        value = fmt.estimate(row.value.mean, row.value.ci)
        table.add_row(
            rank(row),
            row.letter,
            Text(row.candidate),
            value.value,
            value.interval or fmt.NONE,
            fmt.number(row.perplexity, 4),
            fmt.NONE if row.bytes is None else fmt.size(row.bytes),
        )
    return table


# So many slices are printed where there are several pairs.
MOST_SLICES: Final = 12
_COLUMNS: Final = [("Difference", True), ("95 % interval", True), ("p", True), ("p, corrected", True), ("", False)]


def _differences(pair: Pair) -> Table:
    table = _table(f"{pair.later} − {pair.earlier}, paired by token", [("Measure", False), *_COLUMNS])
    for row in pair.differences:
        table.add_row(NAMES[row.measure], *_cells(row, pair))
    return table


def _slices(kind: str, rows: Sequence[Difference], pair: Pair) -> Table:
    title = f"{pair.later} − {pair.earlier} by {kind}, {NAMES[rows[0].measure]}"
    table = _table(title, [(kind.capitalize(), False), *_COLUMNS])
    for row in rows:
        table.add_row(Text(slice_name(row)), *_cells(row, pair))
    return table


def _kinds(pair: Pair) -> tuple[tuple[str, Sequence[Difference]], ...]:
    return (("domain", pair.domains), ("token class", pair.token_classes))


def _print_shown(found: DiffReport) -> None:
    """Of many pairs, the slices of the text where one differs for sure, the largest differences first."""
    every = [(pair, kind, row) for pair in found.pairs for kind, rows in _kinds(pair) for row in rows]
    certain = [one for one in every if one[2].verdict in {"better", "worse"}]
    if not every:
        return
    if not certain:
        out.print(Text("By domain and token class: no difference of a pair is shown."))
        return
    certain.sort(key=lambda one: -abs(one[2].difference.mean or 0.0))
    title = f"Where in the text a pair differs, {NAMES[found.by]}"
    table = _table(title, [("Pair", False), ("Of", False), ("", False), *_COLUMNS])
    for pair, kind, row in certain[:MOST_SLICES]:
        table.add_row(f"{pair.later} − {pair.earlier}", kind, Text(slice_name(row)), *_cells(row, pair))
    out.print(table)
    said = f"{len(certain)} of {len(every)} differences by pair and domain or token class are certain"
    if len(certain) > MOST_SLICES:
        said += f"; the {MOST_SLICES} largest stand above, all are in the JSON and on the page"
    out.print(Text(f"{said}."))


def _pairs(found: DiffReport) -> Table:
    table = _table(f"Every pair, {NAMES[found.by]}, paired by token", [("Pair", False), *_COLUMNS])
    for pair in found.pairs:
        row = next(row for row in pair.differences if row.measure == found.by)
        table.add_row(f"{pair.later} − {pair.earlier}", *_cells(row, pair))
    return table


def _cells(row: Difference, pair: Pair) -> list[str | Text]:
    value = fmt.estimate(row.difference.mean, row.difference.ci)
    said = f"{pair.later} is {row.verdict}" if row.verdict in {"better", "worse"} else row.verdict
    sign = "+" if (row.difference.mean or 0) > 0 else ""
    return [
        f"{sign}{value.value}",
        value.interval or fmt.NONE,
        p_value(row.p),
        p_value(row.p_adjusted),
        Text(said, style=_COLOURS[row.verdict]),
    ]


def _table(title: str, columns: Iterable[tuple[str, bool]]) -> Table:
    """An empty table; columns are (heading, whether it holds numbers)."""
    table = Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table
