"""`hemostat flips`: what this service's own runs say a KL does to answers."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from app.cli.configuration import settings
from app.cli.flips_sweep import Swept, broken, reports, steps_of, sweep
from app.cli.models import DEMO_ALIAS, ensure_demo_model
from app.cli.once import Commands
from app.cli.options import AsJson, Url
from app.cli.output import Exit, err, out, print_json
from app.cli.service import connect, connect_or_start
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.tasks.rule import all_results
from app.reports.format import counted

flips_app = Commands(help="Predict flips from KL, by this service's own tasks jobs.", no_args_is_help=True)

# From hardly any damage to heavy damage, by kinds that flip answers in different ways.
SWEEP: Final = (
    "quantize.rtn:bits=8",
    "quantize.rtn:bits=6",
    "quantize.rtn:bits=5",
    "quantize.rtn:bits=4",
    "quantize.rtn:bits=3",
    "prune.magnitude:sparsity=0.1",
    "prune.magnitude:sparsity=0.2",
    "prune.magnitude:sparsity=0.3",
    "prune.magnitude:sparsity=0.4",
)


@flips_app.command()
def build(
    reference: Annotated[str, typer.Option("--reference", "-r", help="Alias of the unmodified model.")] = DEMO_ALIAS,
    recipe: Annotated[
        list[str] | None, typer.Option(help="A recipe of one step to run, repeated for more; default: a sweep of nine.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="As in `hemostat tasks`; default: shipped.")] = None,
    text: Annotated[int, typer.Option(help="Documents of the shipped text that KL is measured over.")] = 24,
    *,
    from_jobs: Annotated[
        bool, typer.Option("--from-jobs", help="Run nothing: add the results of finished tasks jobs.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Collect the data for predictions: run a sweep of tasks jobs, or read finished ones.

    If a recipe fails, the results of the others are kept, and the command fails.
    """
    from workers.analysis.flips import runs
    from workers.analysis.flips.prediction import FEWEST_TASKS

    configured = settings()
    known = len(runs.read(configured.home))
    if not from_jobs and reference == DEMO_ALIAS:
        ensure_demo_model(configured)
    steps = steps_of(reference, recipe or SWEEP, task, text)
    opened = connect(url, configured) if from_jobs else connect_or_start(url, configured, err, steps[0].request)
    with opened as client:
        swept = Swept() if from_jobs else sweep(client, steps, err)
        found = [run for job, report in reports(client) for run in _runs_of(job, report)]
    earlier = {(run.job, run.fingerprint) for run in runs.read(configured.home)}
    runs.add(configured.home, [run for run in found if run.usable and (run.job, run.fingerprint) not in earlier])
    kept = runs.read(configured.home)
    added, file = len(kept) - known, configured.home / runs.FILE
    if as_json:
        print_json({"runs": len(kept), "added": added, "file": str(file), "jobs": swept.told})
    else:
        out.print(f"{counted(len(kept), 'run')} known, {added} of them new ({file}).", markup=False, soft_wrap=True)
        tasks = {run.identity: run.task for run in kept}
        if 0 < len(tasks) < FEWEST_TASKS:
            named = " or ".join(f"--task {name}" for name in dict.fromkeys(tasks.values()))
            out.print(
                f"Predict with {named}. Without it, a prediction needs runs of {FEWEST_TASKS} tasks.",
                markup=False,
                soft_wrap=True,
            )
    if swept.failed:
        err.print(f"not finished: {', '.join(swept.failed)}", markup=False, soft_wrap=True)
        raise SystemExit(Exit.FAILED)


@flips_app.command()
def predict(
    kl: Annotated[float, typer.Argument(help="Mean KL over a text in nats per token, as a compare job measures it.")],
    items: Annotated[int, typer.Option(help="Items of the task.")] = 1000,
    task: Annotated[
        str | None,
        typer.Option(
            help="Name or fingerprint of a task that was run before; default: any task. That needs runs of three tasks."
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Predict the share of answers that flip at this KL, with a 95 % prediction interval.

    It refuses to predict if no earlier run was near this case.
    """
    from workers.analysis.flips import runs
    from workers.analysis.flips.prediction import Predictor

    _require_sound(kl, items)
    predictor = Predictor(runs.read(settings().home))
    identity = None if task is None else predictor.task(task)
    if task is not None and identity is None and predictor.runs:
        names = ", ".join(sorted({run.task for run in predictor.runs}))
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"there is no earlier run of the task {task!r}",
            hint=f"tasks with runs: {names}; to predict for another task, leave --task out",
        )
    found = predictor.predict(kl, items, task=identity)
    if as_json:
        told: dict[str, Any] = {
            "kl": kl,
            "items": items,
            "status": found.status,
            "rate": found.rate,
            "interval": found.interval,
            "runs": found.runs,
            "tasks": found.tasks,
            "kl_range": found.kl_range,
            "task": identity,
            "sentence": found.sentence,
        }
        print_json(told)
    else:
        out.print(found.sentence, markup=False)
        if not predictor.runs:
            err.print(
                "[bold]what to do:[/] run `hemostat flips build` to collect the data for predictions", soft_wrap=True
            )
    raise SystemExit(Exit.OK if found.status == "seen" else Exit.REFUSED)


def _require_sound(kl: float, items: int) -> None:
    """Raises INVALID_REQUEST, which names each value that nothing is predicted for."""
    wrong = []
    if not 0 < kl < float("inf"):
        wrong.append(f"the KL is {kl:g}, and has to be a number above zero")
    if items < 1:
        wrong.append(f"--items is {items}, and has to be 1 at least")
    if wrong:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "; ".join(wrong),
            hint="for example: hemostat flips predict 0.39 --items 500 --task example",
        )


def _runs_of(job: dict[str, Any], report: dict[str, Any]) -> list[Any]:
    from workers.analysis.flips.runs import Run, teaches

    origin = report["provenance"]
    if report["nonfinite_positions"] or not teaches(step["type"] for step in origin["candidate"]["recipe"] or ()):
        return []
    return [
        Run(
            job=job["id"],
            task=result["name"],
            fingerprint=result["fingerprint"],
            items=result["items"],
            flips=result["flips"]["harmful"] + result["flips"]["helpful"],
            kl=report["divergence"]["kl"]["mean"] or 0.0,
            reference=origin["reference"]["weights_fingerprint"],
            candidate=origin["candidate"]["weights_fingerprint"],
            text=origin["protocol"]["text_fingerprint"],
            finished_at=job["finished_at"] or time.time(),
            source=result.get("source_fingerprint") or "",
        )
        for result in all_results(report)
        if result["outcome"] != "at_chance" and not broken(result)
    ]
