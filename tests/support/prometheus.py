"""A real Prometheus with the project's rules, that scrapes a service which `hemostat up` runs."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from deploy.grafana.queries import Asked
from tests.support.ports import free_port
from tests.support.tools import tool

Json = dict[str, Any]
SOURCE = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
PORTS = {"9090": "own", "8321": "api", "8322": "worker"}


class Watch:
    """Questions to a Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.began = time.time()

    def ask(self, path: str, **parameters: str) -> list[Json]:
        """What a query gives."""
        answer = httpx.post(f"{self.url}/api/v1/{path}", data=parameters, timeout=30)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])

    def now(self, query: str) -> list[Json]:
        """What it gives at this moment; nothing while Prometheus starts."""
        try:
            return self.ask("query", query=query)
        except httpx.TransportError:
            return []

    def until(self, query: str, timeout_s: float = 120) -> list[Json]:
        """What it gives, as soon as it gives something."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.now(query)):
            assert time.monotonic() < deadline, query
            time.sleep(0.2)
        return found

    def until_silent(self, query: str, timeout_s: float = 120) -> None:
        """As soon as it gives nothing, which a Prometheus that is there says."""
        deadline = time.monotonic() + timeout_s
        while self.ask("query", query=query):
            assert time.monotonic() < deadline, query
            time.sleep(0.2)

    def value(self, query: str) -> float:
        """The one number that it gives."""
        (found,) = self.until(query)
        return float(found["value"][1])

    def values(self, asked: Asked) -> list[float]:
        """Every finite value since this Prometheus began, as a panel would get it."""
        if asked.instant:
            found = [[one["value"]] for one in self.ask("query", query=asked.expr)]
        else:
            span = {"start": f"{self.began:.3f}", "end": f"{time.time():.3f}", "step": "1"}
            found = [one["values"] for one in self.ask("query_range", query=asked.expr, **span)]
        numbers = [float(text) for series in found for _, text in series]
        return [number for number in numbers if math.isfinite(number)]


class Prometheus(Watch):
    """`deploy/prometheus/local.yml` as it is, but for ports, and with a second between scrapes."""

    def __init__(self, folder: Path, *, api: int, worker: int) -> None:
        ports = {"own": free_port(), "api": api, "worker": worker}
        super().__init__(f"http://127.0.0.1:{ports['own']}")
        folder.mkdir(parents=True)
        shutil.copytree(SOURCE / "rules", folder / "rules")
        text = (SOURCE / "local.yml").read_text(encoding="utf-8")
        for port, name in PORTS.items():
            assert f":{port}" in text
            text = text.replace(f":{port}", f":{ports[name]}")
        text = re.sub(r"\b1[05]s\b", "1s", text)
        (folder / "prometheus.yml").write_text(text, encoding="utf-8")
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{ports['own']}",
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)


def alert_expression(name: str) -> str:
    """The expression of an alert, as the rules have it."""
    for file in sorted((SOURCE / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if rule.get("alert") == name:
                    return str(rule["expr"])
    raise AssertionError(name)
