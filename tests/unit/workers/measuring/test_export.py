"""What a finished comparison tells Prometheus."""

import math
from functools import partial
from typing import Any

import pytest

from app.kinds.compare.report import CompareReport
from tests.support.reports import variants
from tests.support.values import random_values
from workers.measuring.gauges import export_metrics
from workers.telemetry import Telemetry


class Context:
    """Hands samples straight to the real registry, which refuses unknown names and labels."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.telemetry.observe(name, value, **labels)

    def observe_many(self, name: str, values: list[float], **labels: str) -> None:
        self.telemetry.observe_many(name, values, labels)


def read(context: Any, labels: dict[str, str], metric: str, **more: str) -> float | None:
    return context.telemetry.registry.get_sample_value(f"hemostat_{metric}", labels | more)


def test_every_report_is_exported_as_it_is() -> None:
    for data in variants().values():
        report = CompareReport.model_validate(data)
        context: Any = Context()
        export_metrics(report, random_values(30, seed=1), context)
        of = report.provenance
        recipe = (of.candidate.recipe_fingerprint or "none")[:12]
        labels = {"reference": of.reference.model, "model": of.candidate.model, "recipe": recipe}
        sample = partial(read, context, labels)
        assert sample("kl_mean_nats") == pytest.approx(report.divergence.kl.mean) or report.divergence.kl.mean is None
        assert sample("kl_threshold_nats", severity="severe") == report.decision.thresholds.severe
        assert sample("severity") == ["none", "mild", "moderate", "severe", "collapse"].index(report.severity)
        assert sample("nonfinite_positions") == report.nonfinite_positions
        assert sample("kl_nats_count") == 30
        if report.divergence.kl.ci:
            assert sample("kl_mean_low_nats") == pytest.approx(report.divergence.kl.ci[0])
            assert sample("kl_mean_high_nats") == pytest.approx(report.divergence.kl.ci[1])


def test_an_interval_that_is_no_longer_there_does_not_stay_beside_a_new_mean() -> None:
    context: Any = Context()
    for name in ("severe", "nothing-finite"):
        report = CompareReport.model_validate(variants()[name])
        export_metrics(report, random_values(5), context)
    assert math.isnan(read(context, report.labels(), "kl_mean_low_nats"))
