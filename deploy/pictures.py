"""Takes the pictures of the pages from a real service: `make pictures`. That of the board: `make board-picture`.

Two quantizations of the demo model are compared with it over the shipped text. Chromium then shows the report of the
first, the difference of both, and the list of jobs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.cli.client import Client
from app.cli.demo import RECIPE
from app.cli.models import ensure_demo_model
from app.settings import Settings
from app.up import running
from tests.support.browser import started

DOCS: Final = Path(__file__).parents[1] / "docs"
RECIPES: Final = (RECIPE, {"type": "quantize.gptq", "bits": 4, "group_size": 64})
WIDTH: Final = 1100
HEIGHTS: Final = {"report": 1000, "diff": 1130, "home": 700}


def compared(client: Client, model: str, recipe: Mapping[str, Any]) -> str:
    """The id of a compare job that has succeeded. Raises RuntimeError for one that has not."""
    sides = {"reference": {"model": model}, "candidate": {"model": model, "recipe": [recipe]}}
    job = client.submit({"kind": "compare", **sides, "text": {"source": "shipped"}})
    for _ in client.watch(job["id"]):
        pass
    done = client.job(job["id"])
    if done["status"] != "succeeded":
        raise RuntimeError(f"{done['id']} {done['status']}: {done['error']}")
    return str(done["id"])


def take(pages: Mapping[str, str]) -> None:
    """Writes docs/NAME.png for each page."""
    with started() as browser:
        for name, url in pages.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHTS[name]})
            page.goto(url)
            page.screenshot(path=str(DOCS / f"{name}.png"))
            page.close()


def main() -> None:
    """Runs the service in a home that is removed afterwards."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        model, _ = ensure_demo_model(settings)
        with running(settings) as service, Client(service.url) as client:
            first, second = (compared(client, model, recipe) for recipe in RECIPES)
            jobs = f"{service.url}/v1/diagnosis"
            take(
                {
                    "report": f"{jobs}/jobs/{first}/report?format=html",
                    "diff": f"{jobs}/diff?job={first}&job={second}&format=html",
                    "home": service.url,
                }
            )


if __name__ == "__main__":
    main()
