"""A sweep of tasks jobs for `hemostat flips build`: checked before any of it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console

from app.cli.client import Client
from app.cli.watching import run_to_end
from app.commands.recipes import parse_recipe
from app.commands.tasks import parse_task
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.tasks.rule import all_results
from app.reports import format as fmt

Json = dict[str, Any]
_PAGE: Final = 100


@dataclass(frozen=True)
class Step:
    """One recipe of the sweep, as it was written, and the job that it asks for."""

    written: str
    request: Json


@dataclass
class Swept:
    """What came of a sweep: the job of each recipe, and what went wrong with those that have none."""

    jobs: dict[str, str] = field(default_factory=dict)
    failed: dict[str, HemostatError] = field(default_factory=dict)

    @property
    def told(self) -> list[Json]:
        """For programs."""
        done: list[Json] = [{"recipe": recipe, "job": job} for recipe, job in self.jobs.items()]
        return done + [{"recipe": recipe, "error": error.code} for recipe, error in self.failed.items()]


def steps_of(reference: str, recipes: Sequence[str], task: Sequence[str] | None, documents: int) -> list[Step]:
    """Each recipe once. Raises INVALID_REQUEST for what cannot be read."""
    tasks = [parse_task(one) for one in task or ["shipped"]]
    return [
        Step(
            written,
            {
                "kind": "tasks",
                "reference": {"model": reference},
                "candidate": {"model": reference, "recipe": parse_recipe([written])},
                "tasks": tasks,
                "text": {"source": "shipped", "documents": documents},
            },
        )
        for written in dict.fromkeys(recipes)
    ]


def reports(client: Client) -> Iterator[tuple[Json, Json]]:
    """(job, report) of every tasks job that has succeeded."""
    after: str | None = None
    while True:
        page = client.jobs(kind="tasks", status="succeeded", limit=_PAGE, after=after)
        for job in page["data"]:
            yield job, client.report(job["id"])
        if not page["has_more"]:
            return
        after = page["last_id"]


def sweep(client: Client, steps: Sequence[Step], console: Console) -> Swept:
    """Runs each step. A recipe that fails is passed over.

    Raises `HemostatError` for the first recipe that is refused, before any is run. It also raises if every recipe
    fails, if the service is away, or if these tasks can teach nothing.
    """
    seconds = sum(_checked(client, step) for step in steps)
    console.print(f"{fmt.counted(len(steps), 'run')}, estimated at {fmt.duration(seconds)}", markup=False)
    found = Swept()
    try:
        _run(client, steps, console, found)
    except KeyboardInterrupt:
        console.print(
            f"{len(found.jobs)} of {fmt.counted(len(steps), 'run')} are finished and kept; --from-jobs adds them",
            markup=False,
            soft_wrap=True,
        )
        raise
    if found.failed and not found.jobs:
        raise next(iter(found.failed.values()))
    return found


def _checked(client: Client, step: Step) -> float:
    """Seconds that the service estimates. Raises what it refuses the job with, by the recipe."""
    try:
        return float(client.submit(step.request | {"dry_run": True})["seconds"])
    except HemostatError as error:
        raise HemostatError(
            error.code, f"{step.written}: {error.detail}", hint=error.hint, pointer=error.pointer
        ) from error


def _run(client: Client, steps: Sequence[Step], console: Console, found: Swept) -> None:
    for number, step in enumerate(steps, 1):
        console.print(f"{number} of {len(steps)}: {step.written}", markup=False)
        try:
            job = run_to_end(client, step.request, console)
        except HemostatError as error:
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            found.failed[step.written] = error
            console.print(f"{step.written} failed: {error.detail} ({error.code})", markup=False, soft_wrap=True)
            continue
        found.jobs[step.written] = job["id"]
        report = client.report(job["id"])
        for line in outcome(report):
            console.print(line, markup=False, soft_wrap=True)
        _require_something_to_learn(report)


def _require_something_to_learn(report: Json) -> None:
    """Raises where the reference is at chance on every task: other recipes would not change that."""
    results = all_results(report)
    if all(result["outcome"] == "at_chance" for result in results):
        names = ", ".join(result["name"] for result in results)
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{names} cannot be used for predictions: the unmodified model answers at chance",
            hint="take more items, or tasks that this model can answer",
        )


def outcome(report: Json) -> list[str]:
    """A line a task: what this run shows of its KL and its flips."""
    kl = report["divergence"]["kl"]["mean"]
    lines = []
    for result in all_results(report):
        flips = result["flips"]["harmful"] + result["flips"]["helpful"]
        of = f"{flips} of {result['items']} answers flipped"
        said = f"{result['name']}: {of} at a KL of {fmt.number(kl)} nats per token"
        why = "no number for some choices" if broken(result) else ""
        why = "at chance" if result["outcome"] == "at_chance" else why
        lines.append(f"{said}; {why}, so not learned from" if why else said)
    return lines


def broken(result: Json) -> bool:
    """Whether a model gives no number for some choice: it answers by chance there, whatever its KL over the text."""
    sides = (result.get("not_finite_reference"), result.get("not_finite_candidate"))
    return any(side is not None and side["positions"] for side in sides)
