"""Takes the picture of the board over an hour of traffic: `make board-picture`.

The demo model is served at 4 bits. Requests are the beginnings of the shipped evaluation documents, one every few
seconds. The fitted correction is promoted; later the served weights are replaced by worse ones until the alarm is
raised, and put back. The panels' own queries then draw the hour.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import openai

from app.cli.models import ensure_demo_model
from app.settings import Settings
from deploy.grafana import preview
from tests.support.browser import started
from tests.support.endpoint import RECIPE, Endpoint
from tests.support.worker import wait_for
from workers.text.shipped import shipped_documents

PICTURE: Final = Path(__file__).parents[1] / "docs/board.png"
EVERY_S: Final = 4.0
PROMPT_CHARACTERS: Final = 300
QUIET_S: Final = 30 * 60
AFTER_S: Final = 12 * 60
PATIENCE_S: Final = 3600


class Talk:
    """One request after the other."""

    def __init__(self, url: str) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=300, max_retries=20)
        texts = [found.text[:PROMPT_CHARACTERS] for found in shipped_documents("evaluation") if found.text]
        self._prompts: Iterator[str] = itertools.cycle(texts)

    def until(self, done: Callable[[], bool]) -> None:
        """Asks every few seconds until a condition holds. Raises TimeoutError after an hour."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError("an hour has passed")
            self._client.chat.completions.create(
                model="bot", messages=[{"role": "user", "content": next(self._prompts)}], max_tokens=48
            )
            time.sleep(EVERY_S)

    def during(self, seconds: float) -> None:
        """Asks for so long."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)


def deploy(endpoint: Endpoint) -> None:
    """Serves the demo model at 4 bits, and waits for a replica."""
    request = {
        "name": "bot",
        "model": {"model": "served", "recipe": RECIPE},
        "reference": {"model": "tiny"},
        "shadow_rate": 1.0,
    }
    endpoint.http.post("/v1/deployments", json=request).raise_for_status()
    endpoint.until_serving()


def hurt_and_heal(endpoint: Endpoint, talk: Talk) -> None:
    """Worse weights raise the alarm. The good ones come back, and the alarm ends."""
    serve_again(endpoint, endpoint.put_worse)
    talk.until(lambda: endpoint.get()["shadow"]["drift"] == "alarm")
    serve_again(endpoint, endpoint.put_good)
    rollback = {"to": "identity", "reason": "worse weights were served"}
    endpoint.http.post("/v1/deployments/bot/rollback", json=rollback).raise_for_status()
    talk.until(lambda: endpoint.get()["shadow"]["drift"] == "ok")


def serve_again(endpoint: Endpoint, put: Callable[[], None]) -> None:
    """Other weights, and a replica that has loaded them."""
    (pid,) = [one["pid"] for one in endpoint.get()["running"] if one["role"] == "serve"]
    put()
    endpoint.kill_replica()
    endpoint.until_serving(not_pid=pid)


def draw(url: str, began: float) -> None:
    """Writes the picture of the board since `began`."""
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file, started() as browser:
        file.write(preview.page(url, began, time.time(), "bot"))
        file.flush()
        page = browser.new_page(viewport={"width": 1380, "height": 900})
        page.goto(Path(file.name).as_uri())
        page.screenshot(path=str(PICTURE), full_page=True)


def main() -> None:
    """Runs the service in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Settings(home=Path(folder) / "demo")
        ensure_demo_model(demo)
        (reference,) = demo.home.glob("models/*")
        endpoint = Endpoint(Path(folder) / "hour", reference=reference, engine_kv_cache_bytes=256 * 1024 * 1024)
        try:
            endpoint.start()
            began = time.time()
            deploy(endpoint)
            talk = Talk(endpoint.url)
            talk.until(lambda: endpoint.get()["active_version"] != "identity")
            talk.during(QUIET_S)
            hurt_and_heal(endpoint, talk)
            talk.during(max(AFTER_S, 3600 - (time.time() - began)))
            wait_for(lambda: endpoint.prometheus.now("hemostat_drift_state"), what="the last scrape")
            draw(endpoint.prometheus.url, began)
        finally:
            endpoint.stop()


if __name__ == "__main__":
    main()
