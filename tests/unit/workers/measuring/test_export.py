"""What a finished comparison tells Prometheus."""

import math
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
    context: Any = Context()
    values = random_values(30, seed=1)
    export_metrics(report, values, context)
    of = report.provenance
    recipe = (of.candidate.recipe_fingerprint or "none")[:12]
    labels = {"reference": of.reference.model, "model": of.candidate.model, "recipe": recipe}

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
    context: Any = Context()
    for report in (with_interval, without):
        export_metrics(CompareReport.model_validate(report), random_values(5), context)
    labels = CompareReport.model_validate(without).labels()
    low = context.telemetry.registry.get_sample_value("hemostat_kl_mean_low_nats", labels)
    assert low is not None
    assert math.isnan(low)
