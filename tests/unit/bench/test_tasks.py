"""The bench of published tasks: what is asked, which numbers are kept, and that nothing else is."""

from typing import Any

from app.kinds.tasks.report import TasksReport
from tests.bench.rows import Row
from tests.bench.tasks import rows_of
from tests.support.tasks_reports import task, tasks_report


def report(*made_of: dict[str, Any]) -> TasksReport:
    return TasksReport.model_validate(tasks_report(*made_of))


def values(rows: list[Row]) -> dict[tuple[str, str], float]:
    assert all(row.bench == "tasks" for row in rows)
    return {(row.case, row.metric): row.value for row in rows}


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
