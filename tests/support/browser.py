"""Pages in a real browser: what they ask for, whether they fit their window, and whether they are legible."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.tools import tool

LEGIBLE = 4.5  # WCAG AA for text of this size
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Contrast of each piece of text with what is painted under its middle, boxes and chart shapes alike.
CONTRAST = """
() => {
  const parse = (text) => {
    const found = (text || '').match(/rgba?\\(([^)]+)\\)/);
    if (!found) return null;
    const parts = found[1].split(/[ ,/]+/).map(Number);
    return {rgb: parts.slice(0, 3), alpha: parts.length > 3 ? parts[3] : 1};
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const shape = new Set(['rect', 'circle']);
  const under = (element, x, y) => {
    const layers = [];
    for (const at of document.elementsFromPoint(x, y)) {
      if (at === element && at instanceof SVGElement) continue;
      const style = getComputedStyle(at);
      const paint = parse(at instanceof SVGElement ? (shape.has(at.tagName) ? style.fill : '') : style.backgroundColor);
      if (paint && paint.alpha > 0) layers.push(paint);
      if (paint && paint.alpha === 1) break;
    }
    let rgb = [255, 255, 255];
    for (const layer of layers.reverse())
      rgb = rgb.map((v, i) => layer.rgb[i] * layer.alpha + v * (1 - layer.alpha));
    return rgb;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || ['title', 'desc', 'STYLE'].includes(element.tagName)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = [...range.getClientRects()].find((r) => r.width > 1 && r.height > 1);
    if (!box) continue;
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    if (!element.checkVisibility() || !document.elementsFromPoint(x, y).includes(element)) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color).rgb;
    const [low, high] = [luminance(ink), luminance(under(element, x, y))].sort((a, b) => a - b);
    found.push({text: node.data.trim().slice(0, 60), ratio: (high + 0.05) / (low + 0.05)});
  }
  return found;
}
"""
OVERFLOWING = """
() => {
  const hidden = (e) => e !== null && (getComputedStyle(e).clipPath !== 'none' || hidden(e.parentElement));
  return [...document.querySelectorAll('body *')]
  .filter((e) => !['title', 'desc'].includes(e.tagName) && !hidden(e))
  .map((e) => [e.tagName, e.className.baseVal ?? e.className, e.getBoundingClientRect()])
  .filter(([, , box]) => box.width && (box.right > innerWidth + 1 || box.left < -1))
  .map(([tag, name, box]) => `${tag}.${name} ${box.left} ${box.right}`);
}
"""


@contextmanager
def started() -> Iterator[Browser]:
    """Chromium without a window."""
    executable = tool("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield launched
        launched.close()


class Visit:
    """A page that is open, and what it did: requests beyond its own file, messages on the console."""

    def __init__(self, browser: Browser, file: Path, width: int, scheme: Any = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.own = file.as_uri()
        self.page.goto(self.own)
        self.show(width, scheme)

    def show(self, width: int, scheme: Any = "light") -> None:
        """In a window of that width that is as high as the page, in the light or the dark theme."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.set_viewport_size({"width": width, "height": 900})
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({"width": width, "height": height})

    def open_all(self) -> None:
        """Opens whatever can be opened."""
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *exc: object) -> None:
        self.context.close()


def look(browser: Browser, file: Path) -> None:
    """Visits a page on a telephone and on a desk, in both themes, with all that can be opened open: it fits its window,
    is legible, asks for nothing beyond its own file and complains of nothing."""
    with Visit(browser, file, 1280) as visit:
        visit.open_all()
        for width in (380, 1280):
            for scheme in ("light", "dark"):
                visit.show(width, scheme)
                seen = (file.stem, width, scheme)
                assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, seen
                assert visit.page.evaluate(OVERFLOWING) == [], seen
                texts = visit.page.evaluate(CONTRAST)
                assert len(texts) > 20, seen
                assert [text for text in texts if text["ratio"] < LEGIBLE] == [], seen
        assert [url for url in visit.requests if not url.startswith("data:")] == [visit.own], file.stem
        assert visit.messages == [], file.stem
