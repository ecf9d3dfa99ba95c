"""One snapshot per kind and renderer. What must hold for every report is in the tests beside this file."""

from collections.abc import Callable
from typing import Any

import pytest

from app.kinds.registry import KINDS
from app.reports.html import render_html
from app.reports.markdown import render_markdown
from app.reports.reading import parse
from tests.support.attribute_reports import attribute_variants
from tests.support.calibration_reports import calibration_variants
from tests.support.internals_blocks import dense
from tests.support.mitigate_reports import mitigate_variants
from tests.support.reports import compare_report
from tests.support.snapshots import body
from tests.support.surface_reports import surface_variants
from tests.support.sweep_reports import sweep_variants
from tests.support.tasks_reports import tasks_variants
from tests.support.terminal import printed
from tests.support.trajectory_reports import trajectory_report

REPORTS: dict[str, Callable[[], dict[str, Any]]] = {
    "calibrate": lambda: calibration_variants()["refused"],
    "attribute": lambda: attribute_variants()["full"] | {"internals": dense().model_dump(mode="json")},
    "compare": compare_report,
    "mitigate": lambda: mitigate_variants()["helped"],
    "surface": lambda: surface_variants()["both-orders"],
    "sweep": lambda: sweep_variants()["knee"],
    "tasks": lambda: tasks_variants()["harness"],
    "trajectory": lambda: trajectory_report(candidates=2, few=True),
}


def test_every_kind_has_a_snapshot() -> None:
    assert REPORTS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", REPORTS)
def test_a_report_shows_what_it_showed(kind: str, snapshot: Callable[[str, str], None]) -> None:
    report = REPORTS[kind]()
    blocks = KINDS[kind].call("view", parse(report))
    snapshot(f"{kind}.html", body(render_html(blocks)))
    snapshot(f"{kind}.md", render_markdown(blocks))
    for width in (80, 120):
        snapshot(f"{kind}.{width}.txt", printed(report, width))
    snapshot(f"{kind}.details.txt", printed(report, 100, details=True))
