"""The shadow's metrics are where Prometheus looks for them."""

import httpx
import pytest

from app.settings import Settings
from workers.shadow import _serve_metrics
from workers.telemetry_shadow import ShadowTelemetry


@pytest.mark.parametrize(("named", "listens"), [(None, "127.0.0.1"), ("gpu-7.example", "0.0.0.0")])
def test_other_machines_reach_the_metrics_if_the_host_has_a_name_for_them(tmp_path, named, listens):
    settings = Settings(home=tmp_path, advertise_host=named, shadow_metrics_port=0)
    server, thread = _serve_metrics(settings, ShadowTelemetry("demo"))
    try:
        assert server.server_address[0] == listens
        found = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30)
        assert 'hemostat_shadow_scored_requests_total{deployment="demo"} 0.0' in found.text
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
