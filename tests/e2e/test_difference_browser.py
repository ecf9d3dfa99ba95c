"""The pages about several jobs in a real browser: they fit, are legible in both themes, and ask for nothing."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from app.kinds.compare.difference import render_difference
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
    first, second = side(folder / "one", 1.0), side(folder / "two", 0.8)
    odd = side(folder / "odd", 0.9, dtype="float32")
    more = [side(folder / f"c{index}", 1.0 + 0.3 * index, noise=0.5) for index in range(4)]
    return {
        "two": render_difference(compare_reports([first, second])),
        "many": render_difference(compare_reports([first, second, *more])),
        "odd": render_difference(compare_reports([first, odd], anyway=True)),
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
