"""The whole service as one foreground process: what it starts, what it survives, and that it leaves nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.contracts.errors import HemostatError
from app.contracts.job import JobStatus
from app.settings import Settings
from app.up import run_up, running
from tests.integration.app.deployments.conftest import request
from tests.support.handlers import go
from tests.support.worker import ROOT, Owner, environment, gone, halt, wait_for

HANDLERS = ("--handlers", "tests.support.handlers:HANDLERS")


class Up:
    """A running `hemostat up` over a home with an empty models.toml."""

    def __init__(self, home: Path, *, deployment: str = "", **settings: object) -> None:
        home.mkdir(exist_ok=True)
        (home / "models.toml").touch()
        made = {"HEMOSTAT_TEST_DEPLOYMENT": deployment} if deployment else {}
        self.settings = Settings(
            home=home,
            port=0,
            worker_metrics_port=0,
            cancel_grace_s=1.0,
            redelivery_s=1.5,
            requests_per_minute=100_000,
            **settings,
        )
        self.said = home / "said"
        self.out = home / "out"
        with self.said.open("wb") as errors, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.up"],
                cwd=ROOT,
                env=environment(self.settings) | {"COLUMNS": "200"} | made,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )
        self.family: list[psutil.Process] = []

    def wait(self) -> None:
        wait_for(lambda: self.out.read_text() or self.process.poll() is not None, what="readiness", timeout_s=150)
        assert self.process.poll() is None, self.text()
        _, self.url, self.metrics_url = self.out.read_text().split()
        self.look()

    def look(self) -> None:
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def kill(self, *parts: str) -> None:
        """kill -9 of the processes whose command lines hold these words."""
        self.look()
        for process in [found for part in parts for found in self.family if part in " ".join(found.cmdline())]:
            process.kill()

    def text(self) -> str:
        return self.said.read_text()

    def end(self, *signals: signal.Signals) -> int:
        for number in signals or (signal.SIGINT,):
            self.process.send_signal(number)
            time.sleep(0.3)
        return self.process.wait(150)

    def all_gone(self) -> bool:
        return all(gone(process.pid) for process in self.family)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running_up = Up(tmp_path / "home")
    running_up.wait()
    yield running_up
    if running_up.process.poll() is None:
        running_up.process.kill()
        running_up.process.wait()
        wait_for(running_up.all_gone, what="end of the service")


def fetch(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status, answer.read().decode()


def test_it_serves_it_restarts_what_crashes_and_it_leaves_nothing(up: Up) -> None:
    owner = Owner(up.settings)
    assert fetch(f"{up.url}/readyz")[0] == 200
    assert "hemostat_worker_jobs_total" in fetch(up.metrics_url)[1]
    assert owner.wait(owner.submit(do="count", steps="1")).job.status is JobStatus.SUCCEEDED

    up.kill(" app.main", " workers.main", "valkey-server")

    def restarted() -> bool:
        text = up.text()
        return all(f"the {name} is started again" in text for name in ("API", "worker")) and "Valkey had ended" in text

    wait_for(restarted, what="restarts")
    assert "ended with SIGKILL" in up.text()
    wait_for(lambda: len(owner.workers()) == 1, what="the new worker")
    assert owner.wait(owner.submit(do="count", steps="1")).job.status is JobStatus.SUCCEEDED
    wait_for(lambda: reachable(f"{up.url}/readyz"), what="the new API")

    def whole() -> bool:
        up.look()
        return len(up.family) == 5  # Valkey, API, worker, its child, the agent

    wait_for(whole, what="five processes")
    assert up.end() == 0
    assert up.all_gone()
    assert up.text().splitlines()[-1] == (
        f"The service has stopped. Jobs, deployments and models are kept; `hemostat up` on {up.settings.home} "
        "continues them."
    )
    assert sorted(path.name for path in (up.settings.home / "logs").iterdir()) == ["agent.log", "api.log", "worker.log"]


def test_an_up_that_was_frozen_itself_blames_nobody_and_an_api_that_hangs_is_started_again(tmp_path: Path) -> None:
    hung = Up(tmp_path / "home", api_silence_s=4.0)
    hung.wait()
    try:
        halt(hung.process.pid)
        time.sleep(6.0)
        hung.process.send_signal(signal.SIGCONT)
        time.sleep(2.0)
        assert "not answered" not in hung.text()
        (api,) = [process for process in hung.family if "app.main" in process.cmdline()]
        halt(api.pid)
        wait_for(lambda: "the API is started again" in hung.text(), what="restart", timeout_s=200)
        assert "the API has not answered for 4 s; it is killed" in hung.text()
        wait_for(lambda: reachable(f"{hung.url}/readyz"), what="the new API")
        assert gone(api.pid)
    finally:
        assert hung.end() == 0
    assert hung.all_gone()


def test_a_second_service_of_a_home_says_that_it_is_not_alone_and_a_killed_one_takes_everything_along(up: Up) -> None:
    assert "another service" not in up.text()
    second = Up(up.settings.home)
    try:
        second.wait()
        assert f"another service runs on {up.settings.home}: both take jobs from the same queue" in second.text()
        assert second.end() == 0
        assert second.text().splitlines()[-1] == (
            f"The service has stopped. Jobs, deployments and models are kept; another service on {up.settings.home} "
            "continues them."
        )
    finally:
        second.process.kill()
        second.process.wait()
    assert fetch(f"{up.url}/readyz")[0] == 200
    up.process.kill()
    up.process.wait()
    wait_for(up.all_gone, what="end of everything")


def reachable(url: str) -> bool:
    try:
        return fetch(url)[0] == 200
    except OSError:
        return False


def test_ctrl_c_lets_a_job_finish_and_twice_gives_it_back(tmp_path: Path) -> None:
    first = Up(tmp_path / "home", drain_s=120.0)
    first.wait()
    owner = Owner(first.settings)
    short = owner.submit(do="count", steps="15", slice="0.1", halt="10")
    long = owner.submit(do="count", steps="15", slice="0.1", halt="10")
    owner.wait_until(short, lambda record: record.job.progress.done > 0)
    first.process.send_signal(signal.SIGINT)
    wait_for(lambda: any(worker.draining for worker in owner.workers()), what="drain")
    go(first.settings, short)
    assert first.process.wait(150) == 0
    assert first.all_gone()

    second = Up(tmp_path / "home", drain_s=3600.0)  # longer than anyone waits here
    second.wait()
    assert owner.record(short).job.status is JobStatus.SUCCEEDED
    owner.wait_until(long, lambda record: record.job.progress.done > 2)
    assert second.end(signal.SIGINT, signal.SIGTERM) == 0
    assert second.all_gone()
    go(second.settings, long)

    third = Up(tmp_path / "home")
    third.wait()
    record = owner.wait(long)
    assert (record.job.status, record.job.attempt, record.tries) == (JobStatus.SUCCEEDED, 2, 1)
    assert third.end(signal.SIGTERM) == 0
    assert third.all_gone()


def test_it_serves_one_deployment_and_finds_it_and_its_fit_again(tmp_path: Path, tiny: Callable[..., Path]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models.toml").write_text(f'[models.tiny]\npath = "{tiny("llama")}"\n')
    asked = request().model_dump_json()
    first = Up(home, deployment=asked)
    first.wait()
    # The handlers of these tests know no calibrate job, so that the fit fails, and identity goes on being served.
    wait_for(
        lambda: "tiny-rtn4: no correction is served: The calibrate job failed" in first.text(), what="end of the fit"
    )
    wait_for(lambda: "tiny-rtn4: ready" in first.text(), what="ready")
    assert "tiny-rtn4 is created" in first.text()
    assert "tiny-rtn4: its calibration is being fitted (job diag_" in first.text()
    listed = json.loads(fetch(f"{first.url}/v1/deployments")[1])["data"]
    assert [(one["name"], one["state"], one["active_version"]) for one in listed] == [
        ("tiny-rtn4", "ready", "identity")
    ]
    first.look()
    assert sum("tests.support.serving --deployment" in " ".join(process.cmdline()) for process in first.family) == 2
    assert first.end() == 0
    assert first.all_gone()

    second = Up(home, deployment=asked)
    second.wait()
    wait_for(lambda: "identity (The calibrate job failed" in second.text(), what="its word")

    def ready() -> bool:
        return bool(json.loads(fetch(f"{second.url}/v1/deployments/tiny-rtn4")[1])["state"] == "ready")

    wait_for(ready, what="ready again")
    assert "is being fitted" not in second.text()
    assert second.end() == 0
    assert second.all_gone()


def test_a_taken_port_is_named_with_what_to_set(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, variable in (("port", "HEMOSTAT_PORT"), ("worker_metrics_port", "HEMOSTAT_WORKER_METRICS_PORT")):
            settings = Settings(home=tmp_path, port=0, worker_metrics_port=0).model_copy(update={name: port})
            with pytest.raises(HemostatError) as caught:
                run_up(settings, quiet=True)
            assert str(port) in caught.value.detail
            assert variable in caught.value.hint
    assert not (tmp_path / "valkey").exists()


def test_an_open_address_without_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HemostatError, match="HEMOSTAT_API_KEYS_FILE"), running(Settings(home=tmp_path, host="0.0.0.0")):
        pass


def test_a_service_for_the_time_of_a_block(tmp_path: Path) -> None:
    (tmp_path / "models.toml").touch()
    before = set(psutil.Process().children(recursive=True))
    # The dying worker may still be handed the job; it is delivered again after `redelivery_s`.
    with running(Settings(home=tmp_path, redelivery_s=2.0), worker_arguments=HANDLERS) as service:
        assert fetch(f"{service.url}/readyz")[0] == 200
        owner = Owner(service.settings)
        (worker,) = owner.workers()
        os.kill(worker.pid, signal.SIGKILL)
        job_id = owner.submit(do="count", steps="2")
        assert owner.wait(job_id).job.status is JobStatus.SUCCEEDED
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_service_that_is_not_ready_says_why(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with (
        pytest.raises(HemostatError, match=r"models\.toml"),
        running(Settings(home=tmp_path), worker_arguments=HANDLERS),
    ):
        pass
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_worker_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(HemostatError, match="the worker ended while it started") as caught,
        running(Settings(home=tmp_path), worker_arguments=("--no-such-option",)),
    ):
        pass
    assert "no-such-option" in caught.value.detail
    assert "worker.log" in caught.value.hint
