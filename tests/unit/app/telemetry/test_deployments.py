"""What the collector tells, against the page and by a parser of its own."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.contracts.deployment import CalibrationMode, Deployment
from app.deployments import examples
from app.telemetry.deployments import DeploymentCollector


def scrape(collector):
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def filled():
    collector = DeploymentCollector()
    collector.deployments = [Deployment.model_validate(examples.READY)]
    collector.depths = {"smollm2-135m-rtn4": 7}
    return collector


def test_one_state_and_one_version_are_one():
    families = {family.name: family.samples for family in text_string_to_metric_families(scrape(filled()))}
    assert [s.labels["state"] for s in families["hemostat_deployment_state"] if s.value == 1] == ["ready"]
    assert [s.labels["version"] for s in families["hemostat_calibration_info"]] == [examples.VERSION]
    assert families["hemostat_calibration_activated_timestamp_seconds"][0].value == examples.READY["activated_at"]
    assert families["hemostat_shadow_queue_depth"][0].value == 7


def test_one_mode_is_one():
    for mode in CalibrationMode:
        collector = DeploymentCollector()
        collector.deployments = [Deployment.model_validate(examples.READY | {"calibration": mode.value})]
        families = {family.name: family.samples for family in text_string_to_metric_families(scrape(collector))}
        shown = {sample.labels["mode"]: sample.value for sample in families["hemostat_calibration_mode"]}
        assert shown == {each.value: float(each is mode) for each in CalibrationMode}


def test_nothing_is_told_that_could_not_be_read():
    assert scrape(DeploymentCollector()) == ""
