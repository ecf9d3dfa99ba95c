"""`python -m tests.bench.tasks --data FOLDER`: the published tasks, answered by the demo model and by the same at 4 and
at 3 bits (round to nearest); writes tests/bench/tasks.csv.

FOLDER holds the files that `tests.bench.tasks_files` reads. Items are drawn by the seed; which ones, and what was said,
stands in no row. Code of HumanEval is run as in any job: where HEMOSTAT_CODE_EXECUTION=true and the sandbox proves
itself. Where not, the task is left out and a row says why.

Parts, in turn: `files` reads every item and holds the authors' own answers of GSM8K and programs of HumanEval against
them, which all have to be right; then each candidate, one job over all tasks. The rows of a part are written when it is
done. What a flip rate was expected to be is what the candidates before told. `make docs` writes the tables of
docs/results/tasks.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.contracts.errors import HemostatError
from app.contracts.task import FileTask
from app.kinds.tasks.report import TaskResult, TasksReport
from app.models.tasks.reading import metric_of, read_source
from app.settings import Settings
from tests.bench import processor
from tests.bench.rows import Row, read, write
from tests.bench.tasks_files import write_files
from workers.answering.answers import program, read_numbers
from workers.answering.sandbox import runner
from workers.engine.environment import child_environment

Json = dict[str, Any]
BENCH: Final = "tasks"
RESULTS: Final = Path(__file__).with_name("tasks.csv")
ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".cache" / "bench-tasks"
CANDIDATES: Final[dict[str, list[Json]]] = {
    "rtn_4": [{"type": "quantize.rtn", "bits": 4}],
    "rtn_3": [{"type": "quantize.rtn", "bits": 3}],
}
PARTS: Final = ("files", *CANDIDATES)
ITEMS: Final = {"hellaswag": 200, "arc-challenge": 200, "gsm8k": 32, "humaneval": 32}
QUICK: Final = {"hellaswag": 8, "arc-challenge": 8, "gsm8k": 4, "humaneval": 4}
# Of a generated answer. Longer ones are cut off: the model's seldom are right.
MAX_TOKENS: Final = {"gsm8k": 128, "humaneval": 160}
# KL is measured over as much of the shipped text as `hemostat flips build` takes, which predictions are for.
DOCUMENTS: Final = 24


def request(recipe: Sequence[Json], tasks: Sequence[Json], documents: int = DOCUMENTS) -> Json:
    """A job. No text of the items is kept in its report."""
    return {
        "kind": "tasks",
        "reference": {"model": "smollm2-135m"},
        "candidate": {"model": "smollm2-135m", "recipe": list(recipe)},
        "text": {"source": "shipped", "documents": documents},
        "tasks": [
            {**task, **({"max_tokens": MAX_TOKENS[task["format"]]} if task.get("format") in MAX_TOKENS else {})}
            for task in tasks
        ],
        "store_text": False,
    }


def refusal(settings: Settings) -> str | None:
    """Why code is not run here, as the error's code; None where it is."""
    if not settings.code_execution:
        return "code_execution_disabled"
    try:
        runner.require()
    except HemostatError as error:
        return str(error.code.value)
    return None


def rows_of(part: str, report: TasksReport, seconds: Mapping[str, float]) -> Iterator[Row]:
    """A candidate's rows, and those of each of its tasks. `seconds`: of the job, and by task."""
    kl = report.divergence.kl
    if kl.mean is not None:
        yield Row(BENCH, part, "kl", kl.mean, "nats")
    if kl.ci is not None:
        yield Row(BENCH, part, "kl_low", kl.ci[0], "nats")
        yield Row(BENCH, part, "kl_high", kl.ci[1], "nats")
    yield Row(BENCH, part, "scored_tokens", report.tokens, "tokens")
    yield Row(BENCH, part, "reference_from_store", float(report.provenance.reference_from_store), "yes=1")
    yield Row(BENCH, part, "seconds", seconds["job"], "s")
    for result in report.tasks:
        case = f"{part}_{result.name}"
        yield from _answers(case, result)
        yield from _tests(case, result)
        yield from _flips(case, result)
        yield Row(BENCH, case, "seconds", seconds[result.name], "s")


def _answers(case: str, result: TaskResult) -> Iterator[Row]:
    yield Row(BENCH, case, "items", result.items, "count")
    for name, share in (
        ("reference_accuracy", result.reference),
        ("candidate_accuracy", result.candidate),
        ("difference", result.difference),
    ):
        yield Row(BENCH, case, name, share.mean, "share")
        yield Row(BENCH, case, f"{name}_low", share.ci[0], "share")
        yield Row(BENCH, case, f"{name}_high", share.ci[1], "share")
    yield Row(BENCH, case, "shortened", result.shortened, "count")
    yield Row(BENCH, case, "chance_accuracy", result.chance.accuracy, "share")
    yield Row(BENCH, case, "chance_p_reference", result.chance.p_reference, "p")
    yield Row(BENCH, case, "at_chance", float(result.chance.reference_at_chance), "yes=1")
    yield Row(BENCH, case, "candidate_at_chance", float(result.chance.candidate_at_chance), "yes=1")


def _tests(case: str, result: TaskResult) -> Iterator[Row]:
    yield Row(BENCH, case, "mcnemar_p", result.mcnemar.p, "p")
    yield Row(BENCH, case, "mcnemar_p_holm", result.mcnemar.p_holm, "p")
    yield Row(BENCH, case, "margin", result.equivalence.margin, "share")
    yield Row(BENCH, case, "equivalence_p", result.equivalence.p, "p")
    yield Row(BENCH, case, "equivalence_p_holm", result.equivalence.p_holm, "p")
    yield Row(BENCH, case, "equivalent", float(result.equivalence.equivalent), "yes=1")
    yield Row(BENCH, case, f"outcome_{result.outcome}", 1.0, "yes=1")
    if result.detectable.difference is not None:
        yield Row(BENCH, case, "detectable", result.detectable.difference, "share")
    yield Row(BENCH, case, "detectable_flip_rate", result.detectable.flip_rate, "share")
    yield Row(BENCH, case, "detectable_level", result.detectable.level, "p")
    if result.detectable.at_measured_rate is not None:
        yield Row(BENCH, case, "detectable_at_flip_rate_found", result.detectable.at_measured_rate, "share")


def _flips(case: str, result: TaskResult) -> Iterator[Row]:
    yield Row(BENCH, case, "harmful", result.flips.harmful, "count")
    yield Row(BENCH, case, "helpful", result.flips.helpful, "count")
    yield Row(BENCH, case, "flip_rate", result.flips.rate.mean, "share")
    if result.kl is not None and result.kl.mean is not None:
        yield Row(BENCH, case, "kl", result.kl.mean, "nats")
        if result.kl.ci is not None:
            yield Row(BENCH, case, "kl_low", result.kl.ci[0], "nats")
            yield Row(BENCH, case, "kl_high", result.kl.ci[1], "nats")
    told = result.prediction
    yield Row(BENCH, case, f"prediction_{told.status}", 1.0, "yes=1")
    if told.rate is not None and told.interval is not None:
        yield Row(BENCH, case, "predicted_flip_rate", told.rate, "share")
        yield Row(BENCH, case, "predicted_flip_rate_low", told.interval[0], "share")
        yield Row(BENCH, case, "predicted_flip_rate_high", told.interval[1], "share")


def own_answers(home: Path, tasks: Sequence[Json]) -> Iterator[Row]:
    """Of each file how many items there are, and how many its authors' own answers have right."""
    settings = Settings(home=home, text_root=home / "texts")
    for number, task in enumerate(tasks):
        asked = FileTask.model_validate(task)
        items = read_source(asked, settings, pointer=f"/tasks/{number}")
        case = f"files_{asked.title}"
        yield Row(BENCH, case, "items", len(items), "count")
        if asked.format == "gsm8k":
            right = read_numbers(items, [item.target for item in items], metric_of(asked)).right
            yield Row(BENCH, case, "own_answers_right", int(right.sum()), "count")
        elif asked.format == "humaneval":
            passed = sum(runner.passes(*program(item, item.solution)) for item in items)
            yield Row(BENCH, case, "own_answers_right", passed, "count")


class Bench:
    """The tasks, and a home that its jobs share."""

    def __init__(self, data: Path, home: Path, items: Mapping[str, int]) -> None:
        self.home = home
        self.refused = refusal(Settings())
        asked = write_files(data, home / "texts", items)
        self.tasks = [task for task in asked if task["format"] != "humaneval" or self.refused is None]

    def rows(self, part: str) -> list[Row]:
        """Runs a part."""
        if part == "files":
            return list(own_answers(self.home, self.tasks))
        ((report, seconds),) = self._run({part: request(CANDIDATES[part], self.tasks)})
        rows = list(rows_of(part, report, seconds))
        if self.refused is not None:
            rows.append(Row(BENCH, f"{part}_humaneval", f"refused_{self.refused}", 1.0, "yes=1"))
        return rows

    def _run(self, asked: Mapping[str, Json]) -> list[tuple[TasksReport, dict[str, float]]]:
        """The jobs, in one process with the environment of a worker's child."""
        (self.home / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "tests.bench.tasks_job", str(self.home)],
            check=True,
            cwd=ROOT,
            env=child_environment() | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        )
        found = [json.loads((self.home / f"{name}.json").read_text(encoding="utf-8")) for name in asked]
        return [(TasksReport.model_validate(one["report"]), one["seconds"]) for one in found]


def main(arguments: Sequence[str]) -> None:
    """Runs the named parts, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tasks")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the published files")
    parser.add_argument("--quick", action="store_true", help="see that it works on a few items; writes nothing")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without any, all")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    machine = processor.here(BENCH, child_environment())
    rows = read(RESULTS) if given.parts and RESULTS.is_file() and not given.quick else []
    if rows and machine not in rows:
        parser.error(f"the other rows of {RESULTS.name} are not from {machine.metric}: measure all parts")
    home = HOME.with_name(f"{HOME.name}-quick") if given.quick else HOME
    if not given.parts:  # what earlier runs taught would be in the predictions
        shutil.rmtree(home, ignore_errors=True)
    bench = Bench(given.data, home, QUICK if given.quick else ITEMS)
    rows = rows or [machine]
    for part in given.parts or PARTS:
        fresh = bench.rows(part)
        rows = [row for row in rows if row.case != part and not row.case.startswith(f"{part}_")] + fresh
        if not given.quick:  # what is measured is kept, also when the next part fails
            write(RESULTS, rows)
        for row in fresh:
            sys.stdout.write(f"{row.bench},{row.case},{row.metric},{row.value:.6g},{row.unit}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
