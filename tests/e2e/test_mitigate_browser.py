"""The page of a mitigate report in a real browser: treatments have room."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.reports.render import render
from tests.support.browser import Visit
from tests.support.mitigate_reports import mitigate_variants


@pytest.mark.parametrize("width", [1000, 1280])
def test_treatments_have_room_beside_the_numbers_of_the_front(browser: Browser, tmp_path: Path, width: int) -> None:
    """Three of them in one recipe are told in a few lines, and why a trial ended as it did on lines of its own."""
    file = tmp_path / "helped.html"
    file.write_text(render(mitigate_variants()["helped"]), encoding="utf-8")
    visit = Visit(browser, file, width)
    cells = visit.page.locator("#front tbody td:nth-child(2)")
    boxes = [cells.nth(index).bounding_box() for index in range(cells.count())]
    assert len(boxes) == 4
    assert all(box is not None and box["width"] >= 200 and box["height"] < 160 for box in boxes), boxes
    visit.page.locator("#trials summary").click()
    note = visit.page.locator("#trials tbody td:nth-child(2) small").nth(1)
    assert note.evaluate("element => getComputedStyle(element).display") == "block"
    visit.context.close()
