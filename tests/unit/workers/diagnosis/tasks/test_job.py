"""What a tasks job remembers of its run, on results made by hand; the job itself runs in the integration tests."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.contracts.tasks_report import NotFinite, TasksReport
from tests.support.tasks_reports import task, tasks_report
from workers.diagnosis.tasks.job import _Tasks

NONE, SOME = NotFinite(positions=0, items=0), NotFinite(positions=9, items=4)


@pytest.mark.parametrize(
    ("reference", "candidate", "remembered"),
    [(None, None, 1), (NONE, NONE, 1), (SOME, NONE, 0), (NONE, SOME, 0)],
)
def test_flips_of_a_task_without_a_number_somewhere_are_not_learned_from(
    reference: NotFinite | None, candidate: NotFinite | None, remembered: int
) -> None:
    (found,) = TasksReport.model_validate(tasks_report(task("example", "inconclusive", items=206))).tasks
    found = found.model_copy(update={"not_finite_reference": reference, "not_finite_candidate": candidate})
    measured = SimpleNamespace(
        divergence=SimpleNamespace(kl=SimpleNamespace(mean=0.1)),
        nonfinite_positions=0,
        provenance=SimpleNamespace(protocol=SimpleNamespace(text_fingerprint="t")),
    )
    job = cast(Any, SimpleNamespace(_measured=measured, _context=SimpleNamespace(job_id="diag_1")))
    sides = cast(Any, SimpleNamespace(reference=SimpleNamespace(weights="r"), candidate=SimpleNamespace(weights="c")))
    assert len(_Tasks._runs(job, [found], sides)) == remembered
