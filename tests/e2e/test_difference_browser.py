"""The pages about several jobs in a real browser: they fit, are legible in both themes, and their form can be sent."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser

from app.web.difference import Choice, render_choice, render_difference
from tests.support.browser import look
from tests.support.token_files import DOCUMENTS, LENGTH, side_of, values, write_job
from workers.diagnosis.diff.answer import Side, compare_reports

RNG = np.random.default_rng(3)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS).repeat(LENGTH) * RNG.lognormal(0, 0.4, DOCUMENTS * LENGTH)
CLASSES = {"json_structure": np.arange(HARD.size) % 3 == 0, "answer_start": np.arange(HARD.size) < 4 * LENGTH}
DOMAINS = ("prose", "code", "a domain with quite a long name", "json")


def side(folder: Path, scale: float, noise: float = 0.02, **provenance: object) -> Side:
    kl = scale * HARD * RNG.lognormal(0, noise, HARD.size)
    candidate = {"model": folder.name, "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]}
    told = {"domains": DOMAINS, "classes": CLASSES}
    write_job(folder, values(kl), job=f"diag_{folder.name}", candidate=candidate, **told, **provenance)
    return side_of(folder)


def pages(folder: Path) -> dict[str, str]:
    links = {"reports": "/v1/diagnosis/jobs/{job}/report", "again": "/v1/diagnosis/diff"}
    first, second = side(folder / "one", 1.0), side(folder / "two", 0.8)
    odd = side(folder / "odd", 0.9, dtype="float32")
    more = [side(folder / f"c{index}", 1.0 + 0.3 * index, noise=0.5) for index in range(4)]
    choices = [
        Choice(f"diag_{index}", "a · 4-bit RTN, group 64", "a", "shipped evaluation", "severe", "2026-03-01", differs)
        for index, differs in enumerate(("", "", "text: 0123456789abcdef… instead of fedcba9876543210…"))
    ]
    return {
        "two": render_difference(compare_reports([first, second]), **links),
        "many": render_difference(compare_reports([first, second, *more]), **links),
        "odd": render_difference(compare_reports([first, odd], anyway=True), **links),
        "choice": render_choice(choices[0], choices[1:], path="/v1/diagnosis/diff", report="/r", looked_at=3),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("differences")
    files = {}
    for name, text in pages(folder).items():
        files[name] = folder / f"{name}.html"
        files[name].write_text(text, encoding="utf-8")
    return files


def test_it_fits_is_legible_and_asks_for_nothing(browser: Browser, written: dict[str, Path]) -> None:
    for file in written.values():
        look(browser, file)


def test_jobs_that_are_ticked_are_asked_for(browser: Browser, written: dict[str, Path]) -> None:
    context = browser.new_context()
    page = context.new_page()
    answered: list[str] = []
    page.route("http://service.test/**", lambda route: answered.append(route.request.url) or route.fulfill(body="ok"))
    page.route("http://service.test/choice", lambda route: route.fulfill(path=written["choice"]))
    page.goto("http://service.test/choice")
    page.get_by_role("checkbox").first.check()
    page.get_by_label("Rank by").first.select_option("tv")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_url("**/v1/diagnosis/diff**")
    sent = parse_qs(urlsplit(page.url).query)
    context.close()
    assert sent == {"job": ["diag_0", "diag_1"], "by": ["tv"]}
