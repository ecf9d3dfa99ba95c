"""The page of a sweep report in a real browser: fits its window, is legible in both themes, asks for nothing."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.web.report import render
from tests.e2e.test_report_browser import CONTRAST, OVERFLOWING, Visit, browser
from tests.support.sweep_reports import sweep_variants

__all__ = ["browser"]
LEGIBLE = 4.5  # WCAG AA for text of this size


@pytest.mark.parametrize("name", ["knee", "bits", "broken", "factor", "packed"])
def test_it_fits_is_legible_and_asks_for_nothing(browser: Browser, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.html"
    file.write_text(render(sweep_variants()[name]), encoding="utf-8")
    for width in (380, 1280):
        for scheme in ("light", "dark"):
            visit = Visit(browser, file, width, scheme)
            assert visit.page.evaluate(OVERFLOWING) == [], (width, scheme)
            low = [found for found in visit.page.evaluate(CONTRAST) if found["ratio"] < LEGIBLE]
            assert low == [], (width, scheme)
            assert visit.requests == [file.as_uri()]
            assert visit.messages == []
            visit.context.close()
