"""One stack for every test of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.deploy.stack import Stack


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Stack]:
    """Redis, the models' one-shot, API, worker and Prometheus, all healthy by their own health checks."""
    made = Stack(tmp_path_factory.mktemp("stack"))
    (made.volume("models") / "models.toml").write_text(f'[models.smollm2-135m]\npath = "{smollm2}"\n')
    try:
        for name in ("redis", "models", "api", "worker", "prometheus"):
            made.start(name)
        yield made
    finally:
        made.stop()
