"""The bench of published tasks: what is asked, which numbers are kept, and that nothing else is."""

from pathlib import Path
from typing import Any

import pytest

from app.kinds.tasks.report import TasksReport
from app.kinds.tasks.request import TasksRequest
from tests.bench import processor, tasks
from tests.bench.rows import Row, read
from tests.bench.tasks import CANDIDATES, ITEMS, MAX_TOKENS, PARTS, Bench, main, request, rows_of
from tests.support.tasks_reports import task, tasks_report
from tests.unit.bench.test_tasks_files import COUNTS, made

MACHINE = Row("tasks", "processor", "this one", 1.0, "cores")


def report(*made_of: dict[str, Any]) -> TasksReport:
    return TasksReport.model_validate(tasks_report(*made_of))


def values(rows: list[Row]) -> dict[tuple[str, str], float]:
    assert all(row.bench == "tasks" for row in rows)
    return {(row.case, row.metric): row.value for row in rows}


def test_what_is_asked_are_jobs_that_a_service_would_take(tmp_path: Path) -> None:
    bench = Bench(made(tmp_path / "data"), tmp_path / "home", COUNTS)
    for recipe in CANDIDATES.values():
        asked = TasksRequest.model_validate(request(recipe, bench.tasks))
        assert asked.store_text is False
        limits = {task.title: task.max_tokens for task in asked.tasks if hasattr(task, "max_tokens")}
        assert {name: limits[name] for name in MAX_TOKENS if name in limits}.items() <= MAX_TOKENS.items()
    assert set(ITEMS) == set(COUNTS)


def test_each_number_of_a_report_stands_in_a_row_of_its_task() -> None:
    told = report(
        task("hellaswag", "worse"),
        task("gsm8k", "inconclusive", form="gsm8k", right=0.08, items=60, harmful=3, helpful=1),
    )
    found = values(list(rows_of("rtn_4", told, {"job": 9.0, "hellaswag": 5.0, "gsm8k": 3.0})))
    first, second = told.tasks
    for case, result, took in (("rtn_4_hellaswag", first, 5.0), ("rtn_4_gsm8k", second, 3.0)):
        assert found[case, "items"] == result.items
        assert found[case, "difference"] == result.difference.mean
        assert (found[case, "difference_low"], found[case, "difference_high"]) == result.difference.ci
        assert (found[case, "harmful"], found[case, "helpful"]) == (result.flips.harmful, result.flips.helpful)
        assert found[case, "mcnemar_p_holm"] == result.mcnemar.p_holm
        assert found[case, "equivalence_p_holm"] == result.equivalence.p_holm
        assert found[case, f"outcome_{result.outcome}"] == 1
        assert found[case, "predicted_flip_rate"] == result.prediction.rate
        assert found[case, "seconds"] == took
    assert first.kl is not None
    assert found["rtn_4_hellaswag", "kl"] == first.kl.mean
    assert ("rtn_4_gsm8k", "kl") not in found
    assert found["rtn_4_hellaswag", "detectable"] == first.detectable.difference
    assert found["rtn_4_hellaswag", "detectable_at_flip_rate_found"] == first.detectable.at_measured_rate
    assert ("rtn_4_gsm8k", "detectable") not in found
    assert found["rtn_4", "seconds"] == 9


def test_a_task_at_chance_is_told_as_such_and_nothing_is_predicted_without_a_run() -> None:
    told = report(task("arc-challenge", "at_chance", form="arc", right=0.26, prediction="none"))
    found = values(list(rows_of("rtn_3", told, {"job": 1.0, "arc-challenge": 1.0})))
    case = "rtn_3_arc-challenge"
    assert (found[case, "at_chance"], found[case, "outcome_at_chance"], found[case, "prediction_none"]) == (1, 1, 1)
    assert not any(metric.startswith("predicted") for _, metric in found)


def test_code_that_may_not_run_is_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEMOSTAT_CODE_EXECUTION", raising=False)
    bench = Bench(made(tmp_path / "data"), tmp_path / "home", COUNTS)
    assert bench.refused == "code_execution_disabled"
    assert [one["format"] for one in bench.tasks] == ["hellaswag", "arc", "gsm8k"]
    told = report(task("hellaswag", "worse"))
    monkeypatch.setattr(bench, "_run", lambda asked: [(told, {"job": 1.0, "hellaswag": 1.0})])
    assert bench.rows("rtn_4")[-1] == Row("tasks", "rtn_4_humaneval", "refused_code_execution_disabled", 1.0, "yes=1")


class Broken(Bench):
    """Its last part fails."""

    def rows(self, part: str) -> list[Row]:
        if part == "rtn_3":
            raise RuntimeError("no more")
        return [Row("tasks", f"{part}_hellaswag", "items", 8.0, "count")]


def test_what_a_part_measured_is_written_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "RESULTS", tmp_path / "tasks.csv")
    monkeypatch.setattr(tasks, "HOME", tmp_path / "home")
    monkeypatch.setattr(tasks, "Bench", Broken)
    monkeypatch.setattr(processor, "here", lambda *_: MACHINE)
    with pytest.raises(RuntimeError, match="no more"):
        main(["--data", str(made(tmp_path / "data"))])
    assert read(tmp_path / "tasks.csv") == [
        MACHINE,
        *(Row("tasks", f"{part}_hellaswag", "items", 8.0, "count") for part in PARTS[:-1]),
    ]
    main(["--data", str(tmp_path / "data"), "rtn_4"])
    assert len(read(tmp_path / "tasks.csv")) == len(PARTS)
