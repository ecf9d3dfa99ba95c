"""The page of each kind's report in a real browser: fits its window, is legible in both themes, asks for nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from app.kinds.registry import KINDS
from app.reports.render import render
from tests.support.attribute_reports import attribute_variants
from tests.support.browser import look
from tests.support.calibration_reports import calibration_variants
from tests.support.mitigate_reports import mitigate_variants
from tests.support.reports import variants
from tests.support.surface_reports import surface_variants
from tests.support.sweep_reports import sweep_variants
from tests.support.tasks_reports import tasks_variants
from tests.support.trajectory_reports import trajectory_variants

# Of each kind a usual report, and those that ask most of a page.
PAGES: dict[str, tuple[Callable[[], dict[str, Any]], tuple[str, ...]]] = {
    "compare": (variants, ("severe", "inconclusive", "hostile", "nothing-finite")),
    "calibrate": (calibration_variants, ("proven", "refused", "long")),
    "mitigate": (mitigate_variants, ("helped", "nothing", "errors")),
    "sweep": (sweep_variants, ("knee", "broken")),
    "surface": (surface_variants, ("both-orders", "wide", "broken")),
    "tasks": (tasks_variants, ("several", "hostile")),
    "trajectory": (trajectory_variants, ("long",)),
    "attribute": (attribute_variants, ("full", "other-depth")),
}


def test_every_kind_is_looked_at() -> None:
    assert PAGES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", PAGES)
def test_it_fits_is_legible_and_asks_for_nothing(browser: Browser, tmp_path: Path, kind: str) -> None:
    made, names = PAGES[kind]
    for name in names:
        file = tmp_path / f"{name}.html"
        file.write_text(render(made()[name]), encoding="utf-8")
        look(browser, file)
