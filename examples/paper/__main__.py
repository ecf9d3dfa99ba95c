"""`python -m examples.paper`: measures what has not been measured yet, and writes the pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from app.cli.configuration import settings
from app.cli.interruption import raise_on_sigterm, status_of
from app.cli.models import DEMO_ALIAS, ensure_demo_model
from app.cli.naming import alias_of
from app.cli.output import Exit, err, fail, out
from app.cli.service import start
from app.commands.recipes import parse_text
from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from examples.paper.age import answer
from examples.paper.another import Subject
from examples.paper.claim import FOLDER, Json, claims, jobs_of, request
from examples.paper.judge import judge
from examples.paper.measure import Results, run
from examples.paper.page import Results as Published
from examples.paper.page import collected, is_current, results_in, shown, versions_of, with_earlier, write

DOCS: Final = Path(__file__).parents[2] / "docs"
DEMO: Final = Subject()


def main(
    only: Annotated[list[str] | None, typer.Option(help="Run this job, repeated for more; default: all.")] = None,
    *,
    model: Annotated[str, typer.Option(help="An alias, a folder or a hub id.")] = DEMO_ALIAS,
    text: Annotated[str | None, typer.Option(help="A .txt, .md or .jsonl file, or a folder of them.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder of pages, pictures and results; default: docs, or paper-MODEL for another."),
    ] = None,
    again: Annotated[bool, typer.Option(help="Also measure what has been measured.")] = False,
    write_only: Annotated[bool, typer.Option(help="Measure nothing; write the pages of results.json.")] = False,
    age: Annotated[
        bool, typer.Option("--age", help="Only list the claims whose models newer code would make differently.")
    ] = False,
) -> None:
    """Tests the paper's claims on a model and writes paper.md.

    Exit status: 0, and 4 if a claim has no outcome because a job of it failed or was not run. With --age: 1 if newer
    code would make other models, 4 if there are no results.
    """
    if age:
        ignored = {"--only": only, "--again": again, "--write-only": write_only}
        _tell_age(output or DOCS, beside=[name for name, given in ignored.items() if given])
    raise_on_sigterm()
    try:
        configured = settings()
        subject = _subject(model, text, configured)
        output = output or (DOCS if subject.is_demo else Path(f"paper-{subject.model}"))
        if write_only:
            published = _written(output, subject)
        else:
            published = paper(configured, output, subject=subject, only=only or (), again=again)
    except HemostatError as error:
        fail(error, as_json=False)
    except KeyboardInterrupt as interruption:
        raise SystemExit(status_of(interruption)) from None
    found = published.claims
    outcomes = {one.id: shown(one, found[one.id].finding, subject) for one in claims()}
    for name, outcome in outcomes.items():
        err.print(f"{outcome:<17}{name}", markup=False, soft_wrap=True)
    err.print(f"Page: {output / 'paper.md'}", soft_wrap=True)
    raise SystemExit(Exit.FAILED if "not measured" in outcomes.values() else Exit.OK)


def paper(
    configured: Settings,
    output: Path,
    *,
    folder: Path = FOLDER,
    subject: Subject = DEMO,
    only: Sequence[str] = (),
    again: bool = False,
) -> Published:
    """Runs the jobs of the claims in `folder` that have no kept report and no current ruling below `output`, through a
    service of its own, and publishes. With `only` these jobs alone, with `again` all of them.

    The pages are written after every job, so that a failing job loses no result. Raises `HemostatError` if `only` names
    a job that no claim has, or no service can be started.
    """
    requests, earlier = _requests(folder, subject), _earlier(output)
    stale = [
        claim for claim in claims(folder) if again or not is_current(claim, earlier.claims.get(claim.id), requests)
    ]
    wanted = _wanted(only, requests) or {name: requests[name] for name in jobs_of(tuple(stale))}
    results = Results(configured.home / "paper")
    todo = [one for one in wanted.items() if again or results.find(*one).report is None]
    if todo:
        err.print(f"{len(todo)} of {len(requests)} jobs are to be run; what was measured before is kept.")
        if any(asked["reference"]["model"] == DEMO_ALIAS for _, asked in todo):
            ensure_demo_model(configured)
        with start(configured, err) as client:
            run(client, todo, results, err, after=lambda: publish(output, folder, requests, results, subject))
    return publish(output, folder, requests, results, subject)


def _subject(model: str, text: str | None, configured: Settings) -> Subject:
    """Raises `HemostatError` if there is no such model or text."""
    alias = model if model == DEMO_ALIAS else alias_of(model, configured, url=None)
    return Subject(alias, None if text is None else parse_text(text))


def _requests(folder: Path, subject: Subject) -> dict[str, Json]:
    return {name: subject.request(request(name, folder)) for name in jobs_of(claims(folder))}


def _tell_age(output: Path, *, beside: Sequence[str]) -> NoReturn:
    """Prints it on standard output. Options `beside` it would do nothing and are refused."""
    if beside:
        detail = f"--age measures and writes nothing: it takes no {' and no '.join(beside)}"
        fail(HemostatError(ErrorCode.INVALID_REQUEST, detail, hint="ask for one, then for the other"), as_json=False)
    status, lines = aged(output)
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
    raise SystemExit(status)


def aged(output: Path, folder: Path = FOLDER) -> tuple[Exit, list[str]]:
    """The claims below `output` that newer code would make other models for, and the exit status of that."""
    try:
        claimed = results_in(output).claims
    except FileNotFoundError:
        return Exit.FAILED, [f"There are no results in {output}."]
    listed, requests = claims(folder), _requests(folder, DEMO)
    then = {claim: one.ruling.versions for claim, one in claimed.items() if one.ruling is not None}
    return answer(then, {claim.id: versions_of(claim, requests) for claim in listed})


def publish(
    output: Path, folder: Path, requests: dict[str, Json], results: Results, subject: Subject = DEMO
) -> Published:
    """Judges every claim by its kept reports, and writes the pages."""
    listed = claims(folder)
    measured = {name: results.find(name, asked) for name, asked in requests.items()}
    now = collected(listed, [judge(claim, measured) for claim in listed], measured, requests)
    published = with_earlier(now, _earlier(output), listed, requests)
    write(output, listed, published, requests, subject)
    return published


def _earlier(output: Path) -> Published:
    """The results below `output`; none if there are none."""
    try:
        return results_in(output)
    except FileNotFoundError:
        return Published({}, {})


def _written(output: Path, subject: Subject = DEMO) -> Published:
    """The results below `output`, with their pages written."""
    try:
        published = results_in(output)
    except FileNotFoundError as error:
        detail = f"there are no results in {output}"
        raise HemostatError(ErrorCode.INVALID_REQUEST, detail, hint="`make paper` measures them") from error
    write(output, claims(), published, _requests(FOLDER, subject), subject)
    return published


def _wanted(only: Sequence[str], requests: dict[str, Json]) -> dict[str, Json]:
    """The jobs that were asked for, in this order. Raises `HemostatError` if no claim has one of them."""
    for name in only:
        if name not in requests:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST, f"no claim has a job {name}", hint=f"there are: {', '.join(requests)}"
            )
    return {name: requests[name] for name in only}


if __name__ == "__main__":
    typer.run(main)
