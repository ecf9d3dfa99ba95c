"""What the page says of the published tasks was measured so, and what says nothing of damage is told as such."""

from typing import Any

from app.kinds.tasks.report import TasksReport
from tests.bench.rows import Row
from tests.bench.tasks import rows_of
from tests.bench.tasks_page import section
from tests.support.tasks_reports import task, tasks_report


def told(*made_of: dict[str, Any], refused: str = "") -> str:
    """The section of a report of the candidate at 4 bits."""
    report = TasksReport.model_validate(tasks_report(*made_of))
    seconds = {"job": 9.0} | {result.name: 3.0 for result in report.tasks}
    rows = list(rows_of("rtn_4", report, seconds))
    if refused:
        rows.append(Row("tasks", "rtn_4_humaneval", f"refused_{refused}", 1.0, "yes=1"))
    return section(rows)


def test_what_is_at_chance_says_nothing_of_damage_and_is_told_so() -> None:
    lines = told(task("arc-challenge", "at_chance", form="arc", right=0.26)).splitlines()
    assert [line for line in lines if line.endswith("| at chance |")]
    assert "the reference is at chance: 260 of 1000 are right, guessing has 25.0 % (p = 0.31)" in lines[-1]


def test_a_flip_rate_beyond_its_prediction_is_told() -> None:
    assert "| 7 [3, 14] |" in told(task("hellaswag", "worse"))
    assert "| 7 [3, 14]; **not held** |" in told(task("hellaswag", "worse", harmful=160))
    assert "| 7 [3, 14], outside what was seen |" in told(task("hellaswag", "worse", prediction="outside"))
    assert "| – |" in told(task("hellaswag", "worse", prediction="none"))
