"""A rule or panel over a metric that nobody exports can never fire or show anything: each name is one of the code's."""

import re
from pathlib import Path

from deploy import documentation
from deploy.grafana import board, mitigation

ROOT = Path(__file__).resolve().parents[3]
USED = re.compile(r"\b(hemostat_\w+)")


def used() -> dict[str, set[str]]:
    """Name -> files that use it."""
    prometheus = ROOT / "deploy" / "prometheus"
    files = [*prometheus.glob("rules/*.yml"), *prometheus.glob("tests/*.yml"), board.FILE, mitigation.FILE]
    found: dict[str, set[str]] = {}
    for file in files:
        for name in USED.findall(file.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(file.name)
    return found


def test_every_metric_that_is_used_is_exported() -> None:
    names = documentation.metrics()
    assert {name: files for name, files in used().items() if name not in names} == {}
