"""The page of a tasks report in a real browser: fits its window, is legible in both themes, asks for nothing."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.web.report import render
from tests.e2e.test_report_browser import browser, look
from tests.support.tasks_reports import tasks_variants

__all__ = ["browser"]


@pytest.mark.parametrize("name", ["several", "no-text", "first", "hostile"])
def test_it_fits_is_legible_and_asks_for_nothing(browser: Browser, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.html"
    file.write_text(render(tasks_variants()[name]), encoding="utf-8")
    look(browser, file)
