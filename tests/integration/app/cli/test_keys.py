"""`hemostat keys` beside a running service."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.security.audit import audit_file
from tests.integration.app.conftest import Server, compare

JOBS = "/v1/diagnosis/jobs"


@pytest.fixture
def keys(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, file: Path | None = tmp_path / "keys") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HEMOSTAT_HOME": str(tmp_path)}
        environment |= {"HEMOSTAT_API_KEYS_FILE": str(file)} if file else {}
        command = [sys.executable, "-m", "app.cli.main", "keys", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return run


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def until_status(url: str, key: str, status: int) -> None:
    deadline = time.monotonic() + 120
    while httpx.get(url, headers=bearer(key)).status_code != status:
        assert time.monotonic() < deadline, f"{url} does not answer {status}"
        time.sleep(0.1)


@pytest.mark.timeout(600)  # several processes are started
def test_keys_are_made_and_revoked_while_the_service_runs(
    server: Server, tmp_path: Path, keys: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    made = keys("add", "ann", "--scope", "read", "--scope", "diagnose")
    first = made.stdout.strip()
    assert first not in made.stderr
    server.start(HEMOSTAT_API_KEYS_FILE=str(tmp_path / "keys"), HEMOSTAT_SSE_HEARTBEAT_S="600")
    second = keys("add", "ann", "--scope", "read", "--expires", "2999-01-01").stdout.strip()
    until_status(f"{server.url}{JOBS}", second, 200)  # both open: the old one is replaced without a gap
    job = httpx.post(f"{server.url}{JOBS}", json=compare(), headers=bearer(first)).json()["id"]
    listed = {key["key"]: key for key in json.loads(keys("list", "--json").stdout)}
    assert [key["expires"] for key in listed.values()].count("2999-01-01T00:00:00Z") == 1
    (old,) = [key for key, told in listed.items() if "diagnose" in told["scopes"]]
    with httpx.stream("GET", f"{server.url}{JOBS}/{job}/events", headers=bearer(first), timeout=60) as stream:
        lines = stream.iter_lines()
        assert next(lines)
        assert old in keys("revoke", old).stdout
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    until_status(f"{server.url}{JOBS}", first, 401)
    assert httpx.get(f"{server.url}{JOBS}/{job}", headers=bearer(second)).status_code == 200
    assert keys("list").stdout.count("ann") == 1
    found = [json.loads(line) for line in audit_file(tmp_path).read_text().splitlines()]
    assert [line["action"] for line in found] == ["keys add", "keys add", "keys revoke"]
    assert {line["owner"] for line in found} == {f"uid:{os.getuid()}"}
    assert found[2]["object"] == f"ann:{old}"
    assert not any(key in audit_file(tmp_path).read_text() for key in (first, second))


def test_what_is_refused_changes_nothing(tmp_path: Path, keys: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    keys("add", "ann", "--scope", "read")
    before = (tmp_path / "keys").read_text()
    for arguments in (
        ("add", "ann"),
        ("add", "ann", "--scope", "write"),
        ("add", "a/b", "--scope", "read"),
        ("add", "ann", "--scope", "read", "--expires", "soon"),
        ("add", "ann", "--scope", "read", "--expires", "2001-01-01"),
        ("revoke", "bob"),
    ):
        done = keys(*arguments)
        assert done.returncode == 2, arguments
        assert not done.stdout
        assert done.stderr
    assert "HEMOSTAT_API_KEYS_FILE" in keys("list", file=None).stderr
    assert "No such file" in keys("list", file=tmp_path / "none" / "keys").stderr
    assert (tmp_path / "keys").read_text() == before
