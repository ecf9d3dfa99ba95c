import pytest

from app.contracts.deployment import DeploymentEventType
from app.deployments.words import event_line, event_style


def event(kind, **fields):
    return {"type": kind, "at": 0.0, "reason": "", "version": None, "previous": None, "evidence": {}} | fields


def test_a_state_is_told_with_its_reason():
    failed = event("state", reason="no weights", evidence={"state": "failed", "previous_state": "starting"})
    assert (event_line(failed), event_style(failed)) == ("failed: no weights", "red")


@pytest.mark.parametrize("kind", [*DeploymentEventType, "of_another_version"])
def test_every_event_is_one_line_also_without_evidence(kind):
    line = event_line(event(str(kind)))
    assert line
    assert "\n" not in line
    assert "{" not in line
