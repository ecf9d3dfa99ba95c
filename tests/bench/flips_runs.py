"""`python -m tests.bench.flips_runs --data FOLDER`: runs of the demo model that predictions of flips are held against;
writes tests/bench/flips_runs.jsonl.

`hemostat flips build` runs RECIPES in a home of its own, as anybody would; a sweep that was broken off goes on where it
was. FOLDER holds the published files as for `tests.bench.tasks`, and `wikitext-2-raw/wiki.test.raw`. The tasks
are in `tests.bench.flips_tasks`. Items are drawn by the seed; no text of them is kept.

A line is a run as `workers.analysis.flips.runs` stores it, with the recipe that made the candidate, the processor and
its cores. `python -m tests.bench.flips_real` makes rows of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from tests.bench import processor
from tests.bench.flips_tasks import write_files
from tests.bench.rows import Row
from workers.analysis.flips import runs as flip_runs
from workers.analysis.flips.runs import Run
from workers.engine.environment import child_environment

BENCH: Final = "flips_real"
RUNS: Final = Path(__file__).with_name("flips_runs.jsonl")
ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".cache" / "bench-flips"
# The sweep that `flips build` takes by itself, and kinds of damage that are not in it; of little and of much by turns,
# so that a sweep that is broken off has both.
RECIPES: Final = (
    "quantize.rtn:bits=4",
    "prune.wanda:sparsity=0.5",
    "prune.magnitude:sparsity=0.3",
    "prune.layers:layers=20",
    "quantize.rtn:bits=3",
    "quantize.nf4",
    "prune.magnitude:sparsity=0.4",
    "quantize.rtn:bits=5",
    "prune.layers:layers=10+20",
    "prune.magnitude:sparsity=0.2",
    "quantize.rtn:bits=6",
    "prune.magnitude:sparsity=0.1",
    "quantize.rtn:bits=2",
    "prune.magnitude:sparsity=0.5",
    "quantize.rtn:bits=8",
)


@dataclass(frozen=True)
class Told:
    """A run, and where it is from."""

    run: Run
    recipe: str
    machine: Row


def written(step: Mapping[str, Any]) -> str:
    """A step of a recipe as RECIPES has it. Raises ValueError where it is none of these."""
    for recipe in RECIPES:
        kind, _, rest = recipe.partition(":")
        pairs = dict(pair.split("=") for pair in rest.split(",") if pair)
        if kind == step["type"] and all(_shown(step[key]) == value for key, value in pairs.items()):
            return recipe
    raise ValueError(f"no recipe of the bench is {step}")


def _shown(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def recipes_of(home: Path) -> dict[str, str]:
    """The recipe of each finished job of a home."""
    found = {}
    for file in sorted(home.glob("jobs/*/attempt-*/report.json")):
        report = json.loads(file.read_text(encoding="utf-8"))
        (step,) = report["request"]["candidate"]["recipe"]
        found[report["job"]] = written(step)
    return found


def lines_of(home: Path, machine: Row) -> Iterator[str]:
    """What the file holds of the runs of a home, in the order of RECIPES."""
    recipes = recipes_of(home)
    for run in sorted(flip_runs.read(home), key=lambda run: (RECIPES.index(recipes[run.job]), run.task)):
        told = {"recipe": recipes[run.job], "processor": machine.metric, "cores": int(machine.value), **asdict(run)}
        yield json.dumps(told) + "\n"


def read(file: Path = RUNS) -> list[Told]:
    """The runs of the file."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        run = Run(**{field.name: told[field.name] for field in fields(Run)})
        found.append(Told(run, told["recipe"], Row(BENCH, "processor", told["processor"], told["cores"], "cores")))
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs what has not been run, and writes what has finished; the exit status of the sweep."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flips_runs")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the published files")
    parser.add_argument("--home", type=Path, default=HOME, help="where the jobs are kept")
    parser.add_argument("--gather", action="store_true", help="run nothing: write what has finished")
    given = parser.parse_args(arguments)
    home = given.home.resolve()
    machine = processor.here(BENCH, child_environment())
    told = home / "processor.txt"
    if told.is_file() and told.read_text(encoding="utf-8") != machine.metric:
        parser.error(f"the jobs of this home are from another processor than {machine.metric}")
    tasks = write_files(given.data, home / "texts")
    told.write_text(machine.metric, encoding="utf-8")
    status = 0 if given.gather else _swept(home, tasks)
    if lines := list(lines_of(home, machine)):
        RUNS.write_text("".join(lines), encoding="utf-8")
    return status


def _swept(home: Path, tasks: Sequence[str]) -> int:
    command = [sys.executable, "-m", "app.cli.main", "flips", "build"]
    for name, values in (("--recipe", RECIPES), ("--task", tasks)):
        command += [part for value in values for part in (name, value)]
    paths = {"HEMOSTAT_HOME": str(home), "HEMOSTAT_TEXT_ROOT": str(home / "texts")}
    return subprocess.run(command, check=False, cwd=ROOT, env=child_environment() | paths).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
