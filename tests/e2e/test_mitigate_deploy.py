"""What `hemostat mitigate` recommends is compared, served and fetched by the commands that it prints."""

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.client import Client
from tests.e2e.test_cli import hemostat
from tests.e2e.test_interruption import Command
from tests.support.worker import wait_for

MITIGATE = (
    "mitigate -r tiny --recipe quantize.rtn:bits=3,group_size=32 --treatment repair.lowrank --trials 2 --bytes 200000 "
    "--text shipped:16 --calibration calibration:8 --calibration-windows 8 --calibration-window 64 --window 64"
)


@pytest.fixture
def service(tmp_path: Path, tiny: Callable[..., Path]) -> Iterator[str]:
    """The address of `hemostat up` over a home with a tiny model."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "models.toml").write_text(f"[models.tiny]\npath = {json.dumps(str(tiny()))}\n")
    up = Command(home, "up", "--no-deploy")
    try:
        up.wait_until(lambda: "Ctrl-C stops everything" in up.text(), "a service")
        found = re.search(r"is up at (\S+)", up.text())
        assert found, up.text()
        yield found[1]
    finally:
        up.end(signal.SIGTERM)


def served(service: str, name: str) -> dict[str, Any]:
    """The deployment, asked twice a second at most."""
    time.sleep(0.5)
    with Client(service) as client:
        return client.call("GET", f"/v1/deployments/{name}")


def test_the_recommended_recipe_is_compared_served_and_fetched_as_it_is_told(service: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEMOSTAT_")}
    environment = kept | {"HEMOSTAT_HOME": str(tmp_path / "home"), "HEMOSTAT_URL": service}
    done = hemostat(*shlex.split(MITIGATE), environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [shlex.split(line, comments=True) for line in done.stdout.splitlines() if line.startswith("  hemostat ")]
    compare, deploy, fetch = (line[1:] for line in told)

    estimated = hemostat(*compare, "--dry-run", environment=environment)
    assert estimated.returncode == 0, estimated.stderr
    fetched = hemostat(*fetch, "--to", str(tmp_path / "files"), environment=environment)
    assert fetched.returncode == 0, fetched.stderr
    recipe = json.loads((tmp_path / "files" / "recipe.json").read_text())
    assert [step["type"] for step in recipe] == ["quantize.rtn", "repair.lowrank"]
    assert (tmp_path / "files" / "adapter_config.json").is_file()

    made = hemostat(*deploy, "--calibration", "off", "--shadow-rate", "0", environment=environment)
    assert made.returncode == 0, made.stderr
    name = deploy[2]
    given = served(service, name)["model"]["recipe"]
    assert [step["type"] for step in given] == [step["type"] for step in recipe]
    wait_for(lambda: served(service, name)["state"] == "ready", what="deployment that is ready", timeout_s=600)
    asked = {"model": name, "prompt": "How much is lost?", "max_tokens": 8, "temperature": 0}
    answer = httpx.post(f"{service}/v1/completions", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert hemostat("deploy", "delete", name, environment=environment).returncode == 0
