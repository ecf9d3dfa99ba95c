import pytest


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Stand-ins of replicas answer at once; on a machine that does much else, at once is more than two seconds."""
    monkeypatch.setattr("app.gateway.upstream.HEALTH_TIMEOUT_S", 60.0)
