import pytest

from app.contracts.deployment import DeploymentEventType
from app.deployments.words import event_line, event_style


def event(kind, **fields):
    return {"type": kind, "at": 0.0, "reason": "", "version": None, "previous": None, "evidence": {}} | fields


def test_a_promotion_names_both_versions_and_why():
    told = event_line(event("promoted", version="cal-" + "1" * 16, previous="identity", reason="better\non all"))
    assert told == f"cal-{'1' * 16} is promoted; before: identity: better on all"


def test_a_state_is_told_with_its_reason():
    failed = event("state", reason="no weights", evidence={"state": "failed", "previous_state": "starting"})
    assert (event_line(failed), event_style(failed)) == ("failed: no weights", "red")


def test_a_change_names_every_field():
    assert event_line(event("changed", evidence={"replicas": 2, "alpha": 0.1})) == "changed: replicas 2, alpha 0.1"
    assert event_line(event("changed", reason="the drift test begins again")) == "changed: the drift test begins again"


@pytest.mark.parametrize("kind", [*DeploymentEventType, "of_another_version"])
def test_every_event_is_one_line_also_without_evidence(kind):
    line = event_line(event(str(kind)))
    assert line
    assert "\n" not in line
    assert "{" not in line


def test_a_fit_is_told_with_its_job_and_a_refit_with_its_reason():
    fit = {"type": "fit_started", "reason": "", "evidence": {"job": "job_1"}}
    refit = {"type": "fit_started", "reason": "drift alarm", "evidence": {"seed": 2, "recent_tokens": 900}}
    assert event_line(fit) == "its calibration is being fitted (job job_1)"
    assert event_line(refit) == "its calibration is fitted again to recent traffic: drift alarm"
