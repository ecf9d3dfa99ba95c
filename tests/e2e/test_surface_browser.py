"""The page of a surface report in a real browser: its line touches no number."""

import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page

from app.reports.render import render
from tests.support.browser import Visit
from tests.support.surface_reports import surface_variants

PIXELS = """
async (encoded) => {
  const image = await createImageBitmap(await (await fetch('data:image/png;base64,' + encoded)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  return [image.height, image.width, [...canvas.getImageData(0, 0, image.width, image.height).data]];
}
"""


HIDE = "(shapes, hidden) => shapes.forEach((one) => { one.style.visibility = hidden ? 'hidden' : ''; })"


def painted(browser: Browser, page: Page, *, hidden: str = "") -> NDArray[np.int16]:
    """The chart with its line, without what the selector hides."""
    shapes = page.locator(hidden or "none")
    shapes.evaluate_all(HIDE, True)
    shot = page.locator("#contour svg").screenshot()
    shapes.evaluate_all(HIDE, False)
    with browser.new_context() as blank:  # the page itself lets no script read an image
        height, width, values = blank.new_page().evaluate(PIXELS, base64.b64encode(shot).decode())
    return np.asarray(values, dtype=np.int16).reshape(height, width, 4)[..., :3]


def differ(one: NDArray[np.int16], other: NDArray[np.int16]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(one - other) > 24).any(-1))


def test_on_a_telephone_the_line_touches_no_number_and_is_still_seen(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "surface.html"
    file.write_text(render(surface_variants()["both-orders"]), encoding="utf-8")
    with Visit(browser, file, 380) as visit:
        neither = painted(browser, visit.page, hidden="#contour .contour, #contour rect ~ .mid")
        numbers = differ(painted(browser, visit.page, hidden="#contour .contour"), neither)
        alone = differ(painted(browser, visit.page, hidden="#contour rect ~ .mid"), neither)
        line = differ(painted(browser, visit.page), painted(browser, visit.page, hidden="#contour .contour"))
    around = np.pad(numbers, 1)
    rows, columns = numbers.shape
    near = np.any([around[y : y + rows, x : x + columns] for y in range(3) for x in range(3)], axis=0)
    assert numbers.any()
    assert not (line & near).any()
    assert line.sum() > 0.7 * alone.sum() > 0
