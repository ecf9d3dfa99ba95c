"""What a job found of what its kind asks, in the few words that title its report's page and that lists lead with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.kinds.attribute.report import AttributeReport
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.mitigate.report import MitigateReport
from app.kinds.surface.report import SurfaceReport
from app.kinds.sweep.report import SweepReport
from app.kinds.tasks.report import TasksReport
from app.kinds.trajectory.report import TrajectoryReport
from app.web.sections import attribute_words, calibration, front, surface_words, sweep_words, tasks_words, trajectory

_HEADINGS: Final[dict[type, Callable[[Any], str]]] = {
    AttributeReport: attribute_words.heading,
    CalibrateReport: calibration.heading,
    MitigateReport: front.heading,
    SurfaceReport: surface_words.answer,
    SweepReport: sweep_words.heading,
    TasksReport: tasks_words.heading,
    TrajectoryReport: trajectory.heading,
}


def answer(report: object) -> str | None:
    """Of a report; None where the class of its verdict is all that its kind answers."""
    heading = _HEADINGS.get(type(report))
    return None if heading is None else heading(report)
