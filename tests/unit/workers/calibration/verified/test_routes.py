"""The door of a verify process that other machines can reach."""

from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from app.deployments.secret import headers_for, new_secret
from workers.calibration.verified.routes import make_app


def test_a_door_with_a_secret_asks_for_it() -> None:
    secret = new_secret()
    client = TestClient(make_app(lambda: None, lambda: "it starts", CollectorRegistry(), secret))
    assert client.post("/v1/verified", json={}).status_code == 401
    assert client.post("/v1/verified", json={}, headers=headers_for("guess")).status_code == 401
    known = client.post("/v1/verified", json={}, headers=headers_for(secret))
    assert (known.status_code, known.json()) == (501, {"reason": "it starts"})
    assert client.get("/metrics").status_code == 200
    assert client.get("/livez").status_code == 200


def test_a_door_on_loopback_asks_for_none() -> None:
    client = TestClient(make_app(lambda: None, lambda: "it starts", CollectorRegistry()))
    assert client.post("/v1/verified", json={}).status_code == 501
