"""One stack for every test of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.deploy.stack import Stack
from tests.support.tools import tool


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Stack]:
    """Redis, the models' one-shot, API, worker, Prometheus and the proxy, all healthy by their own health checks."""
    for name in ("prometheus", "promtool", "valkey-cli", "nginx"):  # its servers, and what its health checks call
        tool(name)
    made = Stack(tmp_path_factory.mktemp("stack"))
    folder = made.volume("models") / "models" / "smollm2-135m"
    folder.parent.mkdir()
    folder.symlink_to(smollm2)  # made once for all tests; the one-shot registers it
    try:
        for name in ("redis", "models", "api", "worker", "prometheus", "proxy"):
            made.start(name)
        yield made
    finally:
        made.stop()
