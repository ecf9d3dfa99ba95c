import pytest
from prometheus_client import generate_latest

from app.contracts.metric import Metric
from workers.telemetry import UnknownMetricError
from workers.telemetry_shadow import DEPLOYMENT, SHADOW_CATALOGUE, ShadowTelemetry


def labels_of(metric: Metric) -> dict[str, str]:
    return {label: values[0] for label, values in (metric.values or {}).items()}


@pytest.mark.parametrize("metric", SHADOW_CATALOGUE, ids=lambda metric: metric.name)
def test_every_metric_can_be_written_and_names_its_deployment(metric: Metric) -> None:
    telemetry, labels = ShadowTelemetry("demo"), labels_of(metric)
    if metric.kind == "counter":
        assert telemetry.value(metric.name, **labels) == 0
        telemetry.add(metric.name, 2, **labels)
        telemetry.add(metric.name, **labels)
        assert telemetry.value(metric.name, **labels) == 3
    elif metric.kind == "gauge":
        assert telemetry.value(metric.name, **labels) is None
        telemetry.set(metric.name, 2.5, **labels)
        assert telemetry.value(metric.name, **labels) == 2.5
        telemetry.set(metric.name, None, **labels)
        assert telemetry.value(metric.name, **labels) is None
    else:
        telemetry.record(metric.name, [0.1, 0.2], **labels)
        assert telemetry.value(metric.name, **labels) == 2
    assert f"{metric.exported.removesuffix('_total')}" in generate_latest(telemetry.registry).decode()
    assert metric.labels[0] == DEPLOYMENT


def test_a_wrong_name_kind_or_label_is_an_error() -> None:
    telemetry = ShadowTelemetry("demo")
    for wrong in (
        lambda: telemetry.set("no_such", 1),
        lambda: telemetry.set("drift_alarms", 1),
        lambda: telemetry.add("drift_alarms", 1, reason="x"),
        lambda: telemetry.set("served_kl_mean_nats", 1, stage="a prompt of somebody"),
    ):
        with pytest.raises(UnknownMetricError):
            wrong()
