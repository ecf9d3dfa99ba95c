import ast
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from app.contracts.metric import PREFIX, Metric
from workers.telemetry import MAX_COMPARISONS, Telemetry, UnknownMetricError, catalogue

ROOT = Path(__file__).resolve().parents[3]
ONE = {"reference": "a", "model": "b", "recipe": "0123456789ab"}


def series(telemetry: Telemetry, metric: str) -> int:
    text = generate_latest(telemetry.registry).decode()
    return sum(line.startswith(f"{PREFIX}{metric}{{") for line in text.splitlines())


def labels_of(metric: Metric) -> dict[str, str]:
    return {label: ONE.get(label) or (metric.values or {}).get(label, ("x",))[0] for label in metric.labels}


@pytest.mark.parametrize("metric", catalogue(), ids=lambda metric: metric.name)
def test_every_metric_can_be_observed_and_is_exported(metric: Metric) -> None:
    telemetry = Telemetry()
    telemetry.observe(metric.name, 3.0, **labels_of(metric))
    assert telemetry.value(metric.name, **labels_of(metric)) == (1.0 if metric.kind == "histogram" else 3.0)
    telemetry.observe(metric.name, 4.0, **labels_of(metric))
    expected = {"counter": 7.0, "gauge": 4.0, "histogram": 2.0}[metric.kind]
    assert telemetry.value(metric.name, **labels_of(metric)) == expected
    assert metric.exported.startswith("hemostat_")


def test_a_histogram_counts_each_value_in_its_bucket() -> None:
    telemetry = Telemetry()
    telemetry.observe_many("kl_nats", [0.0, 1e-5, 2e-5, 0.5, 50.0], ONE)

    def below(edge: str) -> float | None:
        return telemetry.registry.get_sample_value("hemostat_kl_nats_bucket", ONE | {"le": edge})

    assert [below(edge) for edge in ("1e-05", "3e-05", "0.3", "1.0", "10.0", "+Inf")] == [2, 3, 3, 4, 4, 5]
    assert telemetry.registry.get_sample_value("hemostat_kl_nats_sum", ONE) == pytest.approx(50.50003)


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UnknownMetricError, match="no_such"):
        Telemetry().observe("no_such", 1)


@pytest.mark.parametrize("labels", [{}, {"role": "candidate", "job": "diag_1"}, {"rôle": "candidate"}])
def test_labels_that_are_not_the_metrics_own_are_an_error(labels: dict[str, str]) -> None:
    with pytest.raises(UnknownMetricError, match="role"):
        Telemetry().observe("tokens_scored", 1, **labels)


@pytest.mark.parametrize(
    "wrong", [{"model": "a prompt of somebody"}, {"recipe": "int4"}, {"reference": ""}, {"model": "x" * 129}]
)
def test_a_comparison_is_named_by_aliases_and_a_fingerprint_only(wrong: dict[str, str]) -> None:
    telemetry = Telemetry()
    with pytest.raises(UnknownMetricError, match="neither an alias nor a fingerprint"):
        telemetry.observe("severity", 1, **(ONE | wrong))
    assert series(telemetry, "severity") == 0


def test_a_value_outside_a_fixed_set_becomes_other() -> None:
    telemetry = Telemetry()
    telemetry.observe("phase_seconds", 1, phase="meditation")
    assert telemetry.value("phase_seconds", phase="other") == 1
    assert telemetry.value("phase_seconds", phase="meditation") is None


def test_comparisons_are_bounded_and_the_oldest_goes_with_all_its_series() -> None:
    telemetry = Telemetry(max_comparisons=3)
    for model in ("m1", "m2", "m3"):
        telemetry.observe("severity", 1, **ONE | {"model": model})
        telemetry.observe_many("kl_nats", [0.1], ONE | {"model": model})
        telemetry.observe("kl_threshold_nats", 0.05, **ONE | {"model": model, "severity": "moderate"})
    telemetry.observe("severity", 2, **ONE | {"model": "m1"})
    telemetry.observe("severity", 1, **ONE | {"model": "m4"})
    text = generate_latest(telemetry.registry).decode()
    assert 'model="m2"' not in text
    assert {model for model in ("m1", "m3", "m4") if f'model="{model}"' in text} == {"m1", "m3", "m4"}
    assert telemetry.value("kl_nats", **ONE | {"model": "m1"}) == 1


def test_a_gauge_of_the_child_is_zero_once_the_child_has_ended() -> None:
    telemetry = Telemetry()
    for name in ("mitigate_trial_running", "worker_busy"):
        telemetry.observe(name, 1)
    telemetry.child_ended()
    assert (telemetry.value("mitigate_trial_running"), telemetry.value("worker_busy")) == (0, 1)


def test_the_bound_holds_by_default() -> None:
    telemetry = Telemetry()
    for number in range(MAX_COMPARISONS + 50):
        telemetry.observe("severity", 1, **ONE | {"model": f"m{number}"})
    assert series(telemetry, "severity") == MAX_COMPARISONS


def test_every_sample_that_the_code_sends_is_of_a_metric() -> None:
    """`context.observe("name", …, label=…)` anywhere in the worker, read from its source."""
    known = {metric.name: set(metric.labels) for metric in catalogue()}
    seen = set()
    for path in (ROOT / "workers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("observe", "observe_many") or not node.args:
                continue
            for name in ast.walk(node.args[0]):
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    assert name.value in known, f"{path.name}:{node.lineno}: {name.value}"
                    given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                    if all(keyword.arg is not None for keyword in node.keywords) and node.func.attr == "observe":
                        assert given == known[name.value], f"{path.name}:{node.lineno}: {given}"
                    seen.add(name.value)
    assert {"worker_jobs", "worker_child_starts", "worker_redis_up"} <= seen
