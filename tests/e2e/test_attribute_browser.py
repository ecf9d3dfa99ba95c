"""The page of an attribution in a real browser: fits its window, is legible in both themes, asks for nothing."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.web.report import render
from tests.e2e.test_report_browser import browser, look
from tests.support.attribute_reports import attribute_report, attribute_variants, site

__all__ = ["browser"]
LONG = "layers.117.block_sparse_moe.experts.127"
PAGES = {
    "other-depth": attribute_variants()["other-depth"],
    "one-long-name": attribute_report(sites=[site(LONG, 1.2345e-7, kind="expert", layer=117)]),
    "full": attribute_variants()["full"],
}


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_is_legible_and_asks_for_nothing(browser: Browser, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.html"
    file.write_text(render(PAGES[name]), encoding="utf-8")
    look(browser, file)
