"""The small programs of the containers and of the first run."""

import hashlib
import http.server
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.security.keys import KeyFile
from app.security.scopes import Scope

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]} | environment,
        timeout=120,
    )


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    done = run(ROOT / "deploy" / "secrets.sh", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "secrets" / "api_key").read_text() in done.stdout
    return folder / "secrets"


def test_the_keys_that_are_made_open_the_service(secrets: Path) -> None:
    ring = KeyFile(secrets / "keys" / "api_keys")
    owner, scraper = (ring.find((secrets / name).read_text()) for name in ("api_key", "scrape_key"))
    assert owner is not None
    assert scraper is not None
    assert (owner.owner, owner.scopes) == ("owner", {Scope.ADMIN})
    assert (scraper.owner, scraper.scopes) == ("prometheus", {Scope.METRICS})


def test_redis_knows_the_password_by_its_digest_only(secrets: Path) -> None:
    password = (secrets / "redis_url").read_text().split(":")[2].partition("@")[0]
    acl = (secrets / "redis_acl").read_text()
    assert hashlib.sha256(password.encode()).hexdigest() in acl
    assert password not in acl
    assert "user default off\n" in acl
    service = next(line for line in acl.splitlines() if line.startswith("user hemostat "))
    assert service.endswith(" -@admin -@dangerous +info +bgrewriteaof")  # app/deployments/disk_side.py


def test_the_folder_is_its_owners_and_every_secret_is_another(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    values = [(secrets / name).read_text() for name in ("api_key", "scrape_key", "grafana_password", "redis_url")]
    assert len(set(values)) == 4
    assert all(len(value) >= 40 for value in values)


def test_a_second_run_keeps_what_there_is(secrets: Path) -> None:
    before = {file: file.read_text() for file in secrets.rglob("*") if file.is_file()}
    done = run(ROOT / "deploy" / "secrets.sh", secrets.parent)
    assert done.returncode == 0
    assert {file: file.read_text() for file in secrets.rglob("*") if file.is_file()} == before


def test_what_a_file_holds_becomes_a_variable(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://u:p@redis:6379/0")
    done = run(
        ROOT / "deploy" / "entrypoint.sh",
        "sh",
        "-c",
        'echo "$HEMOSTAT_REDIS_URL ${HEMOSTAT_REDIS_URL_FILE-unset} $1"',
        "name",
        "an argument",
        HEMOSTAT_REDIS_URL_FILE=str(tmp_path / "url"),
    )
    assert done.stdout == "redis://u:p@redis:6379/0 unset an argument\n"


def test_a_secret_that_is_missing_is_named(tmp_path: Path) -> None:
    done = run(ROOT / "deploy" / "entrypoint.sh", "true", HEMOSTAT_REDIS_URL_FILE=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "deploy/secrets.sh" in done.stderr


def test_the_command_takes_the_place_of_the_shell_so_that_signals_reach_it() -> None:
    done = run(ROOT / "deploy" / "entrypoint.sh", "sh", "-c", "kill -TERM $$")
    assert done.returncode == -15


def test_without_docker_no_digest_is_written(tmp_path: Path) -> None:
    for name in ("docker-compose.yml", "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    done = run(ROOT / "deploy" / "pin-images.sh", tmp_path, PATH=str(tmp_path / "bin"))
    assert done.returncode == 1
    assert "docker buildx" in done.stderr
    for name in ("docker-compose.yml", "Dockerfile"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()


class _Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/readyz" else 200)
        self.end_headers()
        self.wfile.write(b"a 1.0\nup 0.0\n")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["/livez"], 0), (["/metrics", "a 1.0"], 0), (["/metrics", "up 1.0"], 1), (["/readyz"], 1)],
)
def test_the_health_check_asks_for_200_and_for_a_line(url: str, arguments: list[str], status: int) -> None:
    done = run(sys.executable, ROOT / "deploy" / "healthy.py", url + arguments[0], *arguments[1:])
    assert done.returncode == status
    assert bool(done.stderr) == bool(status)


def test_the_health_check_says_when_nobody_answers() -> None:
    done = run(sys.executable, ROOT / "deploy" / "healthy.py", "http://127.0.0.1:9/livez")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("worker", "answer", "good"),
    [
        ("gpu", "echo 580.95.05", True),
        ("gpu", "echo 570.133.20", False),
        ("gpu", "exit 127", False),
        ("cpu", "exit 127", True),
    ],
)
def test_setup_of_the_gpu_build_needs_a_driver_for_its_cuda(
    tmp_path: Path, worker: str, answer: str, good: bool
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{answer}\n")
    smi.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run(ROOT / "deploy" / "prerequisites.sh", PATH=path, WORKER=worker, PYTHON=sys.executable)
    assert (done.returncode == 0) is good, done.stdout
    assert good or "580" in done.stdout
