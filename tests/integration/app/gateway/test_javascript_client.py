"""The official JavaScript client, unmodified, against the gateway: installed from the lock, run by Node."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CACHE
from tests.integration.app.gateway.conftest import KEY, ROOT, Service
from tests.support.ports import free_port
from tests.support.tools import tool

CLIENT = ROOT / "tests" / "clients" / "js"


@pytest.fixture(scope="session")
def client() -> Path:
    """A folder with the client in it, made once for each lock."""
    digest = hashlib.sha256((CLIENT / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = CACHE / f"js-{digest}"
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(CLIENT / name, folder / name)
        command = [tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=240)
    shutil.copy(CLIENT / "run.mjs", folder / "run.mjs")
    return folder


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    pinned = json.loads((CLIENT / "package.json").read_text())["dependencies"]
    for name, version in pinned.items():
        entry = lock["packages"][f"node_modules/{name}"]
        assert entry["version"] == version
        assert entry["integrity"].startswith("sha512-")
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]


async def test_the_client_does_all_that_it_is_for(service: Service, client: Path) -> None:
    await service.deploy("js")
    await service.deploy("js-busy")
    await service.deploy("js-lonely", service.replica("dead", f"http://127.0.0.1:{free_port()}"))
    asked = {"url": service.url, "key": KEY, "model": "js", "busy": "js-busy", "lonely": "js-lonely"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    done = await asyncio.to_thread(
        subprocess.run,
        [tool("node"), "run.mjs", json.dumps(asked)],
        cwd=client,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert "js" in found["models"]
    assert found["chat"]["model"] == "js"
    assert found["chat"]["system_fingerprint"] == found["fingerprint"] == "hemostat-tiny-none-identity"
    assert len(found["chat"]["choices"][0]["logprobs"]["content"]) == 8
    assert found["calibration"] == "identity"
    assert found["streamed"] == found["chat"]["choices"][0]["message"]["content"]
    assert found["usage"]["completion_tokens"] == 8
    assert set(found["structured"]) == {"big"}
    assert found["completion"] <= 3
    assert found["response"] == "js"
    assert found["events"][0] == "response.created"
    assert found["events"][-1] in {"response.completed", "response.incomplete"}
    expected = {
        "unauthorized": ("AuthenticationError", 401, "unauthorized"),
        "unknown": ("NotFoundError", 404, "deployment_not_found"),
        "bad": ("BadRequestError", 400, "invalid_request"),
        "hemostat": ("BadRequestError", 400, "invalid_request"),
        "long": ("BadRequestError", 400, "context_exceeded"),
        "lonely": ("InternalServerError", 503, "replica_unavailable"),
        "verify": ("InternalServerError", 501, "verify_unavailable"),
        "timeout": ("APIConnectionTimeoutError", None, None),
    }
    for name, what in expected.items():
        error = found[name]
        assert (error["class"], error["status"], error["code"]) == what, name
        assert name == "timeout" or error["requestID"]
    assert found["bad"]["param"] == "n"
    assert found["hemostat"]["param"] == "hemostat.calibratoin"
    assert found["refused"], "nobody was refused"
    assert {(one["class"], one["status"]) for one in found["refused"]} == {("RateLimitError", 429)}
    assert found["answered"] == 14
