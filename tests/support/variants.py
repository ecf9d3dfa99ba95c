"""Drawn reports of every kind, by the kind and what is special about them."""

from collections.abc import Callable
from typing import Any

from tests.support import reports
from tests.support.attribute_reports import attribute_variants
from tests.support.calibration_reports import calibration_variants
from tests.support.mitigate_reports import mitigate_variants
from tests.support.surface_reports import surface_variants
from tests.support.sweep_reports import sweep_variants
from tests.support.tasks_reports import tasks_variants
from tests.support.trajectory_reports import trajectory_variants

VARIANTS: dict[str, Callable[[], dict[str, dict[str, Any]]]] = {
    "attribute": attribute_variants,
    "calibrate": calibration_variants,
    "compare": reports.variants,
    "mitigate": mitigate_variants,
    "surface": surface_variants,
    "sweep": sweep_variants,
    "tasks": tasks_variants,
    "trajectory": trajectory_variants,
}
