"""What a record keeps of a report is what its page is titled with."""

import pytest

from app.kinds.registry import KINDS
from app.reports.reading import parse
from app.reports.render import render
from tests.support.attribute_reports import attribute_report
from tests.support.calibration_reports import calibrate_report
from tests.support.html import tree
from tests.support.mitigate_reports import mitigate_report
from tests.support.reports import compare_report
from tests.support.surface_reports import surface_report
from tests.support.sweep_reports import bending, course, sweep_report
from tests.support.tasks_reports import task, tasks_report
from tests.support.trajectory_reports import trajectory_report


@pytest.mark.parametrize(
    "made",
    [
        attribute_report,
        calibrate_report,
        mitigate_report,
        surface_report,
        lambda: sweep_report(course(bending(3))),
        lambda: tasks_report(task("a", "inconclusive"), task("b", "equivalent")),
        trajectory_report,
    ],
)
def test_the_answer_of_each_kind_is_what_its_page_is_titled_with(made):
    report = made()
    said = KINDS[report["kind"]].call("answer", parse(report))
    assert said
    assert tree(render(report)).one("title").text.strip().startswith(f"{said}: ")


def test_a_comparison_answers_with_its_class_alone():
    assert KINDS["compare"].call("answer", parse(compare_report())) is None
