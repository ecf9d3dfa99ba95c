"""Real runs are kept with the recipe that made their candidate, and with the machine."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.flips_runs import BENCH, RECIPES, lines_of, read, written
from tests.bench.rows import Row
from workers.analysis.flips.runs import Run, add

MACHINE = Row(BENCH, "processor", "this one: cpu 1 threads", 2.0, "cores")
RUN = Run("diag_a", "example", "f", 206, 11, 0.3, reference="r", candidate="c", text="t", finished_at=5.0, source="w")
STEP = {"type": "quantize.rtn", "bits": 5, "group_size": 128, "symmetric": True}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two finished jobs, the second in its second attempt, and one that was cancelled."""
    steps = {"diag_a/attempt-1": STEP, "diag_b/attempt-2": {"type": "prune.layers", "layers": [10, 20], "count": None}}
    for folder, step in steps.items():
        (tmp_path / "jobs" / folder).mkdir(parents=True)
        report = {"job": folder.partition("/")[0], "request": {"candidate": {"model": "m", "recipe": [step]}}}
        (tmp_path / "jobs" / folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (tmp_path / "jobs" / "diag_c" / "attempt-1").mkdir(parents=True)
    other = replace(RUN, job="diag_b", candidate="d", flips=40, kl=1.1)
    add(tmp_path, [replace(other, task="words", fingerprint="g", source="v"), other, RUN])
    return tmp_path


def test_runs_come_back_as_they_were_with_their_recipes(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(lines_of(home, MACHINE)), encoding="utf-8")
    found = read(file)
    assert [(one.recipe, one.run.job, one.run.task) for one in found] == [
        ("quantize.rtn:bits=5", "diag_a", "example"),
        ("prune.layers:layers=10+20", "diag_b", "example"),
        ("prune.layers:layers=10+20", "diag_b", "words"),
    ]
    assert found[0].run == RUN
    assert {one.machine for one in found} == {MACHINE}


def test_a_recipe_is_known_by_its_step_with_all_its_fields() -> None:
    assert written(STEP) == "quantize.rtn:bits=5"
    with pytest.raises(ValueError, match="no recipe of the bench"):
        written(STEP | {"bits": 7})
    assert len(set(RECIPES)) == len(RECIPES)
