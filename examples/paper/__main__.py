"""`python -m examples.paper`: measures what has not been measured yet, and writes the page."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.configuration import settings
from app.cli.models import ensure_demo_model
from app.cli.output import err, fail
from app.cli.service import start
from app.contracts.errors import HemostatError
from examples.paper.claim import claims, jobs_of, request
from examples.paper.measure import Results, run


def main(
    only: Annotated[list[str] | None, typer.Option(help="Run this job, repeated for more; default: all.")] = None,
    *,
    again: Annotated[bool, typer.Option(help="Also measure what has been measured.")] = False,
    write: Annotated[bool, typer.Option(help="Measure nothing; write the page of what has been measured.")] = False,
) -> None:
    """Tests the paper's claims on the demo model and writes docs/paper.md."""
    try:
        configured = settings()
        results = Results(configured.home / "paper")
        wanted = [(name, request(name)) for name in only or jobs_of(claims())]
        todo = [one for one in wanted if again or results.find(*one).report is None]
        if todo and not write:
            ensure_demo_model(configured)
            with start(configured, err) as client:
                run(client, todo, results, err, after=lambda _: None)
    except HemostatError as error:
        fail(error, as_json=False)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    typer.run(main)
