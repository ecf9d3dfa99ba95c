"""Every query of the board, its annotations and its variables returns data from a Prometheus that scraped the service.

The API is the compose file's, found and scraped through the compose file's prometheus.yml; the processes of the
deployment are found by service discovery.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.settings import Settings
from deploy.grafana import board, preview
from deploy.grafana.queries import Asked, queries
from tests.integration.deploy.exporters import Exporters, exporters
from tests.integration.deploy.stack import Stack
from tests.support.prometheus import Watch

Json = dict[str, Any]
NAME = "bot"
VERSION = "cal-0123456789abcdef"
ALERTS = {
    "HemostatDriftAlarm",
    "HemostatDriftAboveThreshold",
    "HemostatCalibratedWorseThanRaw",
    "HemostatCalibrationRolledBack",
}
VARIABLES = {"datasource": "prometheus", "deployment": ".+", "__rate_interval": "10s"}
QUERIES = list(queries(json.loads(board.FILE.read_text(encoding="utf-8")), VARIABLES))


class Watched(Watch):
    """A deployment, and the Prometheus that watches it."""

    def __init__(self, url: str, deployment: Exporters) -> None:
        super().__init__(url)
        self.deployment = deployment


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Iterator[Watched]:
    """It is served, promoted, drifts, raises an alarm and is rolled back."""
    settings = Settings(home=stack.volume("home"), redis_url=stack.redis_url)
    with exporters(settings, NAME) as deployment:
        made = Watched(stack.url("9090"), deployment)
        deployment.bleed(raw=0.31, calibrated=0.17, threshold=0.25)
        made.until(f'hemostat_drift_state{{deployment="{NAME}",state="ok"}} == 1')
        made.until(f'hemostat_calibration_promotions_total{{deployment="{NAME}"}} == 0')
        made.until(f'hemostat_gateway_tokens_total{{deployment="{NAME}",kind="completion"}} > 80')
        deployment.ask(lambda store: store.promote(deployment.id, VERSION, reason="better", manual=True))
        made.until(f'hemostat_calibration_info{{deployment="{NAME}",version="{VERSION}"}}')
        deployment.bleed(raw=0.31, calibrated=0.34, threshold=0.25)
        made.until(f'hemostat_drift_state{{deployment="{NAME}",state="alarm"}} == 1')
        deployment.ask(lambda store: store.rollback(deployment.id, reason="worse", manual=True))
        made.until(f'increase(hemostat_calibration_rollbacks_total{{deployment="{NAME}"}}[1m]) > 0')
        yield made


@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: asked.place)
def test_every_query_returns_data(watched: Watched, asked: Asked) -> None:
    assert "$" not in asked.expr
    deadline = time.monotonic() + 90
    while not watched.values(asked):
        assert time.monotonic() < deadline, asked.expr
        time.sleep(0.3)


def test_what_the_stats_show_is_what_is_so(watched: Watched) -> None:
    deadline = time.monotonic() + 90
    while True:
        shown = {asked.place.partition(" / ")[0]: watched.values(asked) for asked in QUERIES if asked.instant}
        if all(shown.values()):  # else a scrape has just failed on a busy machine
            break
        assert time.monotonic() < deadline, shown
        time.sleep(0.3)
    assert shown["Severity"] == [3.0]
    assert [board.DRIFT[value][0] for value in shown["Drift"]] == ["ALARM"]
    assert shown["KL of threshold"] == pytest.approx([0.34 / 0.25])
    assert shown["KL removed by calibration"] == pytest.approx([(0.31 - 0.34) / 0.31])
    assert 0 <= shown["Freshness"][0] < 600
    assert 0 <= shown["Calibration version"][0] < 600
    asked = next(one for one in QUERIES if one.place.startswith("Calibration version"))
    labels = [one["metric"] for one in watched.ask("query", query=asked.expr)]
    assert [(one["version"], one["mode"]) for one in labels] == [("identity", "frozen")]


def test_processes_are_found_with_the_names_of_deployment_and_role(watched: Watched) -> None:
    watched.until('count(up{job="hemostat-deployments"} == 1) == 3')
    found = watched.ask("query", query='up{job="hemostat-deployments"}')
    assert {(one["metric"]["deployment"], one["metric"]["role"]) for one in found} == {
        (NAME, "shadow"),
        (NAME, "serve"),
    }
    kept = watched.ask("query", query=f'hemostat_drift_e_value{{deployment="{NAME}"}}')
    assert all("exported_deployment" not in one["metric"] for one in kept)


def test_alerts_of_what_happened_are_on_their_way_and_no_others(watched: Watched) -> None:
    for alert in ALERTS:
        watched.until(f'ALERTS{{alertname="{alert}",deployment="{NAME}"}}')
    deadline = time.monotonic() + 90
    while True:  # one scrape that fails on a busy machine is the beginning of another alert, and its end the next one
        told = {one["metric"]["alertname"] for one in watched.ask("query", query=f'ALERTS{{deployment="{NAME}"}}')}
        if told == ALERTS:
            break
        assert time.monotonic() < deadline, told
        time.sleep(0.3)


def test_the_preview_draws_every_panel_and_mark(watched: Watched) -> None:
    page = preview.page(watched.url, watched.began, time.time())
    panels = json.loads(board.FILE.read_text(encoding="utf-8"))["panels"]
    for panel in panels:
        assert panel["title"].replace("$deployment", "all") in page
        assert panel["fieldConfig"]["defaults"]["noValue"] not in page.partition("</style>")[2]
    for text in ("severe", "ALARM", "136 %", "identity", "threshold"):
        assert text in page
    for colour in ("red", "green", "orange"):
        assert f'stroke="{preview.COLOURS[colour]}" stroke-width="1.5"' in page
