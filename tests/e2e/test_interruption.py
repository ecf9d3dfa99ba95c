"""`hemostat` is told to end while it works: it ends what it has started in order, says so, and leaves nothing."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.contracts.job import JobStatus
from app.jobs.embedded import EmbeddedValkey
from app.settings import Settings
from tests.e2e.test_cli import HEMOSTAT, _processes_of
from tests.support.worker import ROOT, Owner, wait_for


class Command:
    """A running `hemostat` over a home of its own."""

    def __init__(self, home: Path, *arguments: str) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.said = home / "said"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEMOSTAT_")}
        own = {"HEMOSTAT_HOME": str(home), "HEMOSTAT_PORT": "0", "HEMOSTAT_WORKER_METRICS_PORT": "0"}
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [*HEMOSTAT, *arguments],
                cwd=ROOT,
                env=kept | own | {"COLUMNS": "100"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # Where the tests run in the background of a shell, SIGINT is ignored from the start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
            )

    def text(self) -> str:
        return self.said.read_text()

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        wait_for(lambda: condition() or self.process.poll() is not None, what=what, timeout_s=240)
        assert self.process.poll() is None, self.text()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(120)

    def staged(self) -> list[Path]:
        return list((self.home / "models").glob(".smollm2-135m-*"))


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    made: list[Command] = []

    def start(*arguments: str) -> Command:
        made.append(Command(tmp_path / "home", *arguments))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def demo(command: Callable[..., Command], tmp_path: Path, smollm2: Path) -> Command:
    """`hemostat demo` of a home that has the demo model."""
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / "smollm2-135m").symlink_to(smollm2)
    return command("demo")


def last_line(subject: Command) -> str:
    return subject.text().splitlines()[-1]


@pytest.mark.parametrize(
    ("phase", "number", "status"),
    [("scoring the reference", signal.SIGTERM, 143), ("modifying the weights", signal.SIGINT, 130)],
)
def test_a_demo_whose_job_runs_cancels_it_and_ends_the_worker_before_valkey(
    demo: Command, phase: str, number: signal.Signals, status: int
) -> None:
    demo.wait_until(lambda: phase in demo.text(), "a running job")
    assert demo.end(number) == status
    assert _processes_of(demo.home) == [], "when it has ended, everything has"
    cancelled = re.search(r"^(diag_\w+) is cancelled$", demo.text(), re.MULTILINE)
    assert cancelled, demo.text()
    assert last_line(demo) == (
        f"interrupted: the temporary service has stopped. Models and finished jobs are kept in {demo.home}. "
        "The same command starts again"
    )
    assert "Traceback" not in demo.text()
    log = (demo.home / "logs" / "worker.log").read_text()
    assert "has gone" in log
    assert "Redis" not in log
    assert "Connection" not in log
    settings = Settings(home=demo.home)
    with EmbeddedValkey(settings):
        assert Owner(settings).record(cancelled[1]).job.status is JobStatus.CANCELLED
        assert Owner(settings).workers() == [], "it took its leave"


def test_a_demo_whose_service_starts_ends_it(demo: Command) -> None:
    demo.wait_until((demo.home / "logs" / "worker.log").is_file, "a worker that starts")
    assert demo.end(signal.SIGTERM) == 143
    # a process that was being started just then is known to nobody yet, and ends when it sees its parent gone
    wait_for(lambda: _processes_of(demo.home) == [], what="end of the worker that started")
    assert "the temporary service has stopped" in last_line(demo)
    assert "Traceback" not in demo.text()


@pytest.mark.parametrize(("name", "number", "status"), [("demo", signal.SIGTERM, 143), ("up", signal.SIGINT, 130)])
def test_an_import_that_is_ended_leaves_neither_process_nor_file(
    command: Callable[..., Command], name: str, number: signal.Signals, status: int
) -> None:
    subject = command(name)
    subject.wait_until(subject.staged, "an import that runs")
    assert subject.end(number) == status
    assert _processes_of(subject.home) == []
    assert list((subject.home / "models").iterdir()) == []
    assert not (subject.home / "models.toml").exists()
    assert last_line(subject).startswith("interrupted: the import is stopped")
    assert "Traceback" not in subject.text()


def test_an_import_whose_command_is_killed_goes_with_it(command: Callable[..., Command]) -> None:
    subject = command("demo")
    subject.wait_until(subject.staged, "an import that runs")
    assert subject.end(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: _processes_of(subject.home) == [], what="end of the import")
    assert list((subject.home / "models").iterdir()) == []
