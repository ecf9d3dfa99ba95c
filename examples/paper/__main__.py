"""`python -m examples.paper`: measures what has not been measured yet, and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from app.cli.configuration import settings
from app.cli.interruption import raise_on_sigterm, status_of
from app.cli.models import DEMO_ALIAS, ensure_demo_model
from app.cli.output import Exit, err, fail, out
from app.cli.service import start
from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from examples.paper.age import answer
from examples.paper.claim import FOLDER, Json, claims, jobs_of, request
from examples.paper.judge import judge
from examples.paper.measure import Results, run
from examples.paper.page import Told, versions_of, write

DOCS: Final = Path(__file__).parents[2] / "docs"


def main(
    only: Annotated[list[str] | None, typer.Option(help="Run this job, repeated for more; default: all.")] = None,
    *,
    output: Annotated[Path, typer.Option(help="The folder that the page, its pictures and its CSV go to.")] = DOCS,
    again: Annotated[bool, typer.Option(help="Also measure what has been measured.")] = False,
    write_only: Annotated[bool, typer.Option(help="Measure nothing; write the page of what was measured.")] = False,
    age: Annotated[
        bool, typer.Option("--age", help="Only tell what newer code would make otherwise; write nothing.")
    ] = False,
) -> None:
    """Tests the paper's claims on the demo model and writes docs/paper.md.

    Exit status: 0, and 4 if a claim has no answer because a job of it failed or was not run. With --age 1 if the code
    has moved on since the page was measured, and 4 if there is no page that says from what.
    """
    if age:
        ignored = {"--only": only, "--again": again, "--write-only": write_only}
        _tell_age(output, beside=[name for name, given in ignored.items() if given])
    raise_on_sigterm()
    try:
        told = paper(settings(), output, only=only or (), again=again, write_only=write_only)
    except HemostatError as error:
        fail(error, as_json=False)
    except KeyboardInterrupt as interruption:
        raise SystemExit(status_of(interruption)) from None
    for one in told:
        err.print(f"{one.finding.outcome:<17}{one.claim.title}", markup=False, soft_wrap=True)
    err.print(f"Page: {output / 'paper.md'}", soft_wrap=True)
    raise SystemExit(Exit.FAILED if any(one.finding.outcome == "not measured" for one in told) else Exit.OK)


def paper(
    configured: Settings,
    output: Path,
    *,
    folder: Path = FOLDER,
    only: Sequence[str] = (),
    again: bool = False,
    write_only: bool = False,
) -> tuple[Told, ...]:
    """Runs the jobs of the claims in `folder` that have no kept report, through a service of its own, and publishes.

    The page is written behind every job, so that what was measured is told whatever happens to the next one. Raises
    `HemostatError` where `only` names a job that no claim has, or no service can be started.
    """
    requests = {name: request(name, folder) for name in jobs_of(claims(folder))}
    wanted = _wanted(only, requests)
    results = Results(configured.home / "paper")
    todo = [one for one in wanted.items() if again or results.find(*one).report is None]
    if todo and not write_only:
        err.print(f"{len(todo)} of {len(requests)} jobs are to be run; what was measured before is kept.")
        if any(asked["reference"]["model"] == DEMO_ALIAS for _, asked in todo):
            ensure_demo_model(configured)
        with start(configured, err) as client:
            run(client, todo, results, err, after=lambda: publish(output, folder, requests, results))
    return publish(output, folder, requests, results)


def _tell_age(output: Path, *, beside: Sequence[str]) -> NoReturn:
    """Says it on standard output, for it is what was asked for. Options given `beside` it, which would do nothing, are
    refused."""
    if beside:
        detail = f"--age measures and writes nothing: it takes no {' and no '.join(beside)}"
        fail(HemostatError(ErrorCode.INVALID_REQUEST, detail, hint="ask for one, then for the other"), as_json=False)
    status, lines = aged(output)
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
    raise SystemExit(status)


def aged(output: Path, folder: Path = FOLDER) -> tuple[Exit, list[str]]:
    """Which claims of the page below `output` the code has moved on from, a line for each change of versions, and the
    exit status of that."""
    try:
        page = (output / "paper.md").read_text(encoding="utf-8")
    except FileNotFoundError:
        return Exit.FAILED, [f"There is no page in {output}."]
    listed = claims(folder)
    requests = {name: request(name, folder) for name in jobs_of(listed)}
    return answer(page, {claim.id: versions_of(claim, requests) for claim in listed})


def publish(output: Path, folder: Path, requests: dict[str, Json], results: Results) -> tuple[Told, ...]:
    """Judges every claim by what is kept, and writes the page."""
    measured = {name: results.find(name, asked) for name, asked in requests.items()}
    told = tuple(Told(claim, judge(claim, measured)) for claim in claims(folder))
    write(output, told, measured, requests)
    return told


def _wanted(only: Sequence[str], requests: dict[str, Json]) -> dict[str, Json]:
    """The jobs to run, in the order in which they were asked for."""
    for name in only:
        if name not in requests:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST, f"no claim has a job {name}", hint=f"there are: {', '.join(requests)}"
            )
    return {name: requests[name] for name in only} if only else requests


if __name__ == "__main__":
    typer.run(main)
