"""The page of an attribution in a real browser: no text of a chart stands on another one."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from app.reports.render import render
from tests.support import internals_blocks
from tests.support.attribute_reports import attribute_report, site
from tests.support.browser import Visit, look

LONG = "layers.117.block_sparse_moe.experts.127"
# Pairs of texts of one chart whose boxes share more than a pixel.
TOUCHING = """
() => [...document.querySelectorAll('svg')].flatMap((chart) => {
  const texts = [...chart.querySelectorAll('text')].map((one) => [one.textContent, one.getBoundingClientRect()]);
  return texts.flatMap(([name, a], i) => texts.slice(i + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
    .map(([other]) => `${name} | ${other}`));
})
"""


def few_documents() -> dict[str, Any]:
    """Layers and heads with the wide intervals of two documents."""
    layers = [site(f"layers.{n}", 0.04 / (n + 1), kind="layer", layer=n, ci=[0.0, 0.38 / (n + 1)]) for n in range(30)]
    attention = internals_blocks.attention()
    for layer in attention["layers"]:
        for head in layer["heads"]:
            head |= {"js": {"mean": 0.1234, "ci": [0.1211, 0.1257], "clusters": "windows"}}
            head |= {"kl": 0.244, "kl_ci": [0.231, 0.257], "tv": 0.261, "tv_ci": [0.25, 0.272]}
            for name, scale in (("sink", 0.1), ("entropy", 0.3), ("range", 10.0)):
                head[name] = {"reference": 8.99 * scale, "reference_ci": [8.62 * scale, 9.36 * scale]}
                head[name] |= {"candidate": 4.13 * scale, "candidate_ci": [3.5 * scale, 4.76 * scale]}
        layer["js"] = {"mean": 0.04, "ci": [0.0, 0.38], "clusters": "windows"}
    inside = internals_blocks.dense(attention=attention).model_dump(mode="json")
    return attribute_report(sites=layers) | {"internals": inside}


def test_no_text_of_a_chart_stands_on_another_one(browser: Browser, tmp_path: Path) -> None:
    few, long = tmp_path / "few-documents.html", tmp_path / "one-long-name.html"
    few.write_text(render(few_documents()), encoding="utf-8")
    long.write_text(render(attribute_report(sites=[site(LONG, 1.2345e-7, kind="expert", layer=117)])), encoding="utf-8")
    look(browser, long)
    with Visit(browser, few, 1280) as visit:
        for width in (1280, 380):
            visit.show(width)
            assert visit.page.evaluate(TOUCHING) == [], width
