"""The report page in a real browser: themes, names of charts, narrow windows, no script, and paper."""

import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from app.reports.render import render
from tests.support.browser import Visit
from tests.support.reports import variants
from tests.support.tools import tool

NAMES = ("severe", "hostile")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    written = {}
    for name in NAMES:
        written[name] = folder / f"{name}.html"
        written[name].write_text(render(variants()[name]), encoding="utf-8")
    return written


@pytest.mark.parametrize("width", [760, 1000])
@pytest.mark.parametrize("name", ["hostile", "severe"])
def test_a_wide_table_scrolls_by_itself_in_a_window_between_telephone_and_desk(browser, pages, name, width):
    with Visit(browser, pages[name], width) as visit:
        visit.open_all()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_theme_follows_the_reader(browser, pages):
    def ground(scheme):
        with Visit(browser, pages["severe"], 1280, scheme) as visit:
            return visit.page.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
                " getComputedStyle(document.querySelector('svg .band')).fill]"
            )

    light, dark = ground("light"), ground("dark")
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] == "rgb(20, 23, 26)"
    assert all(one != other for one, other in zip(light, dark, strict=True))


def test_charts_are_named_for_those_who_cannot_see_them(browser, pages):
    with Visit(browser, pages["severe"], 1280) as visit:
        charts = visit.page.get_by_role("img")
        assert charts.count() == visit.page.locator("svg").count() > 20
        unnamed = visit.page.locator("svg:not(:has(> title))").count()
        named = visit.page.get_by_role("img", name="Excess KL").count()
    assert (unnamed, named) == (0, 1)


def test_a_script_in_a_report_would_not_run(browser, pages, tmp_path):
    file = tmp_path / "tampered.html"
    html = pages["severe"].read_text(encoding="utf-8")
    file.write_text(html.replace("</body>", "<script>document.title = 'ran'</script></body>"), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.title() != "ran"
    context.close()


@pytest.fixture(scope="module")
def printed(browser, pages, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("print") / "report.pdf"
    with Visit(browser, pages["severe"], 1280, "dark") as visit:
        visit.page.pdf(path=str(file), prefer_css_page_size=True, print_background=True)
    return file


def pages_of(pdf: Path) -> list[str]:
    text = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], check=True, capture_output=True, text=True).stdout
    return [unicodedata.normalize("NFKC", sheet) for sheet in text.split("\f")[:-1]]  # without ligatures


def test_it_prints_on_a4_with_every_chart_whole(printed):
    info = subprocess.run(["pdfinfo", str(printed)], check=True, capture_output=True, text=True).stdout
    assert "A4" in next(line for line in info.splitlines() if line.startswith("Page size"))
    sheets = pages_of(printed)
    assert len(sheets) <= 10
    together = [
        ("Excess KL over the noise floor", "excess 0.308", "0.354", "exactly 0", "collapse"),
        ("Share of positions by KL", "median", "99th percentile", "0.001"),
        ("By domain", *variants()["severe"]["domains"], "0.5"),
        ("By the reference", "0.95 to 1", "0.5"),
        ("By position in the window", "64 to 255", "0.5"),
    ]
    for texts in together:
        assert any(all(text in sheet for text in texts) for sheet in sheets), texts


def test_nothing_is_cut_at_the_edge_of_the_paper_and_the_ground_is_white(printed, tmp_path):
    subprocess.run([tool("pdftoppm"), "-r", "50", "-gray", str(printed), str(tmp_path / "sheet")], check=True)
    sheets = sorted(tmp_path.glob("*.pgm"))
    assert sheets
    for sheet in sheets:
        header, size, _, pixels = sheet.read_bytes().split(b"\n", 3)
        assert header == b"P5"
        width, height = map(int, size.split())
        gray = np.frombuffer(pixels, dtype=np.uint8)[: width * height].reshape(height, width)
        margin = 20  # a little over 10 mm at 50 dots an inch
        assert gray[:, :margin].min() == gray[:, -margin:].min() == 255
        assert gray[:margin].min() == gray[-margin:].min() == 255
        assert np.median(gray) == 255
