"""The page of a calibrate report in a real browser: fits its window, is legible in both themes, asks for nothing."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.web.report import render
from tests.e2e.test_report_browser import browser, look
from tests.support.calibration_reports import calibration_variants

__all__ = ["browser"]


@pytest.mark.parametrize("name", ["proven", "refused", "unfitted", "long"])
def test_it_fits_is_legible_and_asks_for_nothing(browser: Browser, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.html"
    file.write_text(render(calibration_variants()[name]), encoding="utf-8")
    look(browser, file)
