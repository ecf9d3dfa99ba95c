"""`python -m examples.paper`: measures what has not been measured yet, and writes the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.configuration import settings
from app.cli.models import ensure_demo_model
from app.cli.output import err, fail
from app.cli.service import start
from app.contracts.errors import HemostatError
from examples.paper.claim import Claim, Json, claims, jobs_of, request
from examples.paper.judge import judge
from examples.paper.measure import Results, run
from examples.paper.page import Told, write

DOCS: Final = Path(__file__).parents[2] / "docs"


def main(
    only: Annotated[list[str] | None, typer.Option(help="Run this job, repeated for more; default: all.")] = None,
    *,
    output: Annotated[Path, typer.Option(help="The folder that the page, its pictures and its CSV go to.")] = DOCS,
    again: Annotated[bool, typer.Option(help="Also measure what has been measured.")] = False,
    write_only: Annotated[bool, typer.Option(help="Measure nothing; write the page of what was measured.")] = False,
) -> None:
    """Tests the paper's claims on the demo model and writes docs/paper.md."""
    try:
        configured = settings()
        listed = claims()
        requests = {name: request(name) for name in jobs_of(listed)}
        wanted = _wanted(only, requests)
        results = Results(configured.home / "paper")
        todo = [one for one in wanted.items() if again or results.find(*one).report is None]

        def rewrite() -> tuple[Told, ...]:
            return publish(output, listed, requests, results)

        if todo and not write_only:
            err.print(f"{len(todo)} of {len(requests)} jobs are to be run; what is measured is kept.")
            ensure_demo_model(configured)
            with start(configured, err) as client:
                run(client, todo, results, err, after=rewrite)
        told = rewrite()
    except HemostatError as error:
        fail(error, as_json=False)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    for one in told:
        err.print(f"{one.finding.outcome:<17}{one.claim.title}", markup=False, soft_wrap=True)
    err.print(f"Page: {output / 'paper.md'}", soft_wrap=True)
    # Claims without an answer are no success: the jobs that failed are named on the page.
    raise SystemExit(2 if any(one.finding.outcome == "not measured" for one in told) and not only else 0)


def publish(output: Path, listed: tuple[Claim, ...], requests: dict[str, Json], results: Results) -> tuple[Told, ...]:
    """Judges every claim by what is kept, and writes the page."""
    measured = {name: results.find(name, asked) for name, asked in requests.items()}
    told = tuple(Told(claim, judge(claim, measured)) for claim in listed)
    write(output, told, measured, requests)
    return told


def _wanted(only: list[str] | None, requests: dict[str, Json]) -> dict[str, Json]:
    """The jobs to run, in the order in which they were asked for."""
    for name in only or ():
        if name not in requests:
            raise typer.BadParameter(f"no claim has a job {name}; there are: {', '.join(requests)}")
    return {name: requests[name] for name in only} if only else requests


if __name__ == "__main__":
    typer.run(main)
