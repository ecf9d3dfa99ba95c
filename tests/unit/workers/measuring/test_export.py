"""What a finished comparison tells Prometheus."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from app.kinds.compare.report import CompareReport
from tests.support.reports import variants
from tests.support.values import random_values
from workers.measuring.export import export_metrics
from workers.telemetry import Telemetry


class Context:
    """Hands samples straight to the real registry, which refuses unknown names and labels."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.telemetry.observe(name, value, **labels)

    def observe_many(self, name: str, values: list[float], **labels: str) -> None:
        self.telemetry.observe_many(name, values, labels)


@pytest.mark.parametrize("name", sorted(variants()))
def test_every_report_is_exported_as_it_is(name: str) -> None:
    report = CompareReport.model_validate(variants()[name])
    fingerprint = "0123456789abcdef" * 4
    sides: Any = SimpleNamespace(
        reference=SimpleNamespace(alias="base"),
        candidate=SimpleNamespace(alias="changed"),
        modified=SimpleNamespace(manifest=SimpleNamespace(recipe_fingerprint=fingerprint)),
    )
    context: Any = Context()
    values = random_values(30, seed=1)
    export_metrics(report, values, sides, context)
    labels = {"reference": "base", "model": "changed", "recipe": fingerprint[:12]}

    def sample(metric: str, **more: str) -> float | None:
        return context.telemetry.registry.get_sample_value(f"hemostat_{metric}", labels | more)

    assert sample("kl_mean_nats") == pytest.approx(report.divergence.kl.mean) or report.divergence.kl.mean is None
    assert sample("kl_threshold_nats", severity="severe") == report.decision.thresholds.severe
    assert sample("severity") == ["none", "mild", "moderate", "severe", "collapse"].index(report.severity)
    assert sample("nonfinite_positions") == report.nonfinite_positions
    assert sample("kl_nats_count") == 30
    if report.divergence.kl.ci:
        assert sample("kl_mean_low_nats") == pytest.approx(report.divergence.kl.ci[0])
        assert sample("kl_mean_high_nats") == pytest.approx(report.divergence.kl.ci[1])


def test_an_interval_that_is_no_longer_there_does_not_stay_beside_a_new_mean() -> None:
    with_interval, without = variants()["severe"], variants()["nothing-finite"]
    sides: Any = SimpleNamespace(
        reference=SimpleNamespace(alias="base"),
        candidate=SimpleNamespace(alias="changed"),
        modified=SimpleNamespace(manifest=SimpleNamespace(recipe_fingerprint=None)),
    )
    context: Any = Context()
    for report in (with_interval, without):
        export_metrics(CompareReport.model_validate(report), random_values(5), sides, context)
    labels = {"reference": "base", "model": "changed", "recipe": "none"}
    low = context.telemetry.registry.get_sample_value("hemostat_kl_mean_low_nats", labels)
    assert low is not None
    assert math.isnan(low)
