"""Every query of the dashboard of mitigate jobs returns data from a Prometheus that scrapes a worker's own metrics."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import start_http_server

from deploy.grafana import mitigation
from deploy.grafana.queries import Asked, queries
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.tools import tool
from workers.telemetry import Telemetry

VARIABLES = {"datasource": "prometheus", "model": ".+", "__rate_interval": "10s", "__range": "10m"}
QUERIES = list(queries(json.loads(mitigation.FILE.read_text(encoding="utf-8")), VARIABLES))
LABELS = {"reference": "demo", "model": "demo", "recipe": "0123456789ab"}
GAUGES = {"best_saved": 0.31, "saved": 0.27, "saved_low": 0.21, "saved_high": 0.33}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Telemetry]]:
    """A worker in the middle of a trial, whose job before this one is done."""
    telemetry = Telemetry()
    server, thread = start_http_server(0, addr="127.0.0.1", registry=telemetry.registry)
    prometheus = Prometheus(tmp_path_factory.mktemp("watched") / "p", api=free_port(), worker=server.server_port)
    try:
        telemetry.observe("mitigate_trial_running", 1)
        for name, value in GAUGES.items():
            telemetry.observe(f"mitigate_{name}_nats", value, **LABELS)
        telemetry.observe("mitigate_helped", 1, **LABELS)
        telemetry.observe("mitigate_finished_timestamp_seconds", time.time(), **LABELS)
        deadline = time.monotonic() + 120
        while not ready(prometheus.url):
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.2)
        prometheus.until("hemostat_mitigate_trials_total")
        yield prometheus, telemetry
    finally:
        prometheus.stop()
        server.shutdown()
        server.server_close()
        thread.join()


def ready(url: str) -> bool:
    """Whether it answers queries: while it starts it refuses them."""
    try:
        return httpx.get(f"{url}/-/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: asked.place)
def test_every_query_returns_data(watched: tuple[Prometheus, Telemetry], asked: Asked) -> None:
    prometheus, telemetry = watched
    assert "$" not in asked.expr
    deadline = time.monotonic() + 90
    while not prometheus.values(asked):
        assert time.monotonic() < deadline, asked.expr
        for rung in ("cheap", "full"):
            telemetry.observe("mitigate_trials", 1, outcome="measured")
            telemetry.observe("mitigate_trial_seconds", 40.0, rung=rung)
        time.sleep(0.3)


def test_what_the_stats_show_is_what_is_so(watched: tuple[Prometheus, Telemetry]) -> None:
    prometheus, _ = watched
    stats = [asked for asked in QUERIES if asked.instant and not asked.place.startswith("variable")]
    deadline = time.monotonic() + 90
    while True:
        shown = {asked.place.partition(" / ")[0]: prometheus.values(asked) for asked in stats}
        if all(shown.values()):  # else a scrape has just failed on a busy machine
            break
        assert time.monotonic() < deadline, shown
        time.sleep(0.3)
    assert shown == {"Trials running": [1.0], "Saved on the test": [0.27], "Helped for sure": [1.0]}


def test_of_several_workers_the_number_of_the_last_job_is_shown(tmp_path: Path) -> None:
    """Two workers treat one candidate: one saves much, then the other less, then the first something in between."""
    asked = next(one for one in QUERIES if one.place == "Saved on the test / A")

    def series(instance: str, model: str, saved: str, ended: str) -> list[dict[str, str]]:
        labels = f'{{instance="{instance}",job="worker",reference="a",model="{model}",recipe="r"}}'
        return [
            {"series": f"hemostat_mitigate_saved_nats{labels}", "values": saved},
            {"series": f"hemostat_mitigate_finished_timestamp_seconds{labels}", "values": ended},
        ]

    def case(at: str, *values: tuple[str, float]) -> dict[str, object]:
        samples = [{"labels": f'{{model="{model}", recipe="r"}}', "value": value} for model, value in values]
        return {"expr": asked.expr, "eval_time": at, "exp_samples": samples}

    shown = {
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    *series("one", "b", "0.5 0.5 0.4", "100 100 300"),
                    *series("two", "b", "_ 0.2 0.2", "_ 200 200"),
                    *series("two", "c", "0.1 0.1 0.1", "50 50 50"),
                    *series("gone", "d", "0.7 stale", "60 stale"),  # started again, it knows nothing of it
                ],
                "promql_expr_test": [
                    case("0m", ("b", 0.5), ("c", 0.1), ("d", 0.7)),
                    case("1m", ("b", 0.2), ("c", 0.1), ("d", 0.7)),
                    case("2m", ("b", 0.4), ("c", 0.1), ("d", 0.7)),
                ],
            }
        ],
    }
    file = tmp_path / "last.yml"
    file.write_text(yaml.safe_dump(shown))
    done = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
