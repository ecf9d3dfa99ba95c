"""What a tasks job remembers of its run, on results made by hand; the job itself runs in the integration tests."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.kinds.tasks.report import NotFinite, TasksReport
from app.models.tasks.power import ASSUMED_FLIP_RATES
from tests.support.tasks_reports import task, tasks_report
from workers.analysis.flips.prediction import Predictor
from workers.analysis.flips.runs import Run
from workers.diagnosis.tasks.job import _Tasks, _warnings, learned
from workers.diagnosis.tasks.result import Planned

NONE, SOME = NotFinite(positions=0, items=0), NotFinite(positions=9, items=4)


def result(**changes):
    (found,) = TasksReport.model_validate(tasks_report(task("example", "inconclusive", items=206))).tasks
    return found.model_copy(update=changes)


@pytest.mark.parametrize(
    ("reference", "candidate", "steps", "remembered"),
    [
        (None, None, ["quantize.rtn"], 1),
        (NONE, NONE, ["quantize.rtn"], 1),
        (SOME, NONE, ["quantize.rtn"], 0),
        (NONE, SOME, ["quantize.rtn"], 0),
        (None, None, [], 1),
        (None, None, ["decode.temperature"], 0),
        (None, None, ["quantize.rtn", "decode.temperature"], 0),
    ],
)
def test_flips_without_a_number_somewhere_or_beside_the_kl_of_a_temperature_are_not_learned_from(
    reference, candidate, steps, remembered
):
    found = result(not_finite_reference=reference, not_finite_candidate=candidate)
    assert _remembered(found, *steps) == remembered


def _remembered(found, *steps):
    request = SimpleNamespace(candidate=SimpleNamespace(recipe=[SimpleNamespace(type=step) for step in steps]))
    sides = SimpleNamespace(reference=SimpleNamespace(weights="r"), candidate=SimpleNamespace(weights="c"))
    measured = SimpleNamespace(
        request=request,
        context=SimpleNamespace(job_id="diag_1"),
        sides=sides,
        corpus=SimpleNamespace(fingerprint="t"),
        summary=SimpleNamespace(divergence=SimpleNamespace(kl=SimpleNamespace(mean=0.1)), nonfinite_positions=0),
    )
    return len(learned([found], measured))


def test_what_runs_of_another_reference_model_say_is_not_planned_with():
    runs = [Run(f"j{n}", "t", "f", 200, 30 + n, 0.05 * (n + 1), reference="small", candidate=f"c{n}") for n in range(8)]
    job = cast(Any, SimpleNamespace(_request=SimpleNamespace(seed=0)))
    asked = cast(Any, SimpleNamespace(items=range(206), source="f"))
    small, large = (
        Planned(_Tasks._predicted(job, Predictor(runs), asked, 0.1, name), "f") for name in ("small", "large")
    )
    assert (small.prediction.status, small.rate[1]) == ("seen", True)
    assert (large.prediction.status, large.rate) == ("outside", (ASSUMED_FLIP_RATES[0], False))


def test_what_limits_a_task_is_told():
    guessing = result().chance.model_copy(update={"candidate_at_chance": True})
    for changes, told in (
        ({}, []),
        ({"shortened": 12}, [("shortened_items", {"items": 12, "task": "example"})]),
        ({"chance": guessing}, [("candidate_at_chance", {"task": "example"})]),
        ({"outcome": "at_chance", "chance": guessing}, [("at_chance", {"task": "example"})]),
    ):
        assert [(one.code, one.facts) for one in _warnings([result(**changes)])] == told
