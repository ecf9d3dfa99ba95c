"""A Valkey and a home for the tests of one module, and workers over them."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.jobs.embedded import EmbeddedValkey
from app.settings import Settings
from tests.support.worker import Owner, WorkerProcess


class House:
    """One home: its Valkey, its owner's view, the workers that a test starts."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(
            home=home, worker_metrics_port=0, redelivery_s=1.5, cancel_grace_s=3.0, drain_s=60.0, max_attempts=3
        )
        self.valkey = EmbeddedValkey(self.settings)
        self.valkey.start()
        self.owner = Owner(self.settings)
        self._workers: list[WorkerProcess] = []
        self._logs = itertools.count()

    def worker(self, **settings: Any) -> WorkerProcess:
        """A worker that is up; `settings` are its own."""
        worker = WorkerProcess(
            self.settings.model_copy(update=settings), self.settings.home / f"worker-{next(self._logs)}.log"
        )
        self._workers.append(worker)
        worker.wait_until_up()
        return worker

    def stop_workers(self) -> None:
        running = [worker for worker in self._workers if worker.process.poll() is None]
        for worker in running:
            worker.terminate()  # all of them end at the same time
        for worker in running:
            worker.stop()
        self._workers.clear()

    def close(self) -> None:
        self.stop_workers()
        self.valkey.stop()


@pytest.fixture(scope="module")
def shared_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    yield house
    house.close()


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    """The module's house; the workers that a test started end with it."""
    yield shared_house
    shared_house.stop_workers()


@pytest.fixture
def lone_house(tmp_path: Path) -> Iterator[House]:
    """The test has it for itself. A worker that looks for lost messages keeps others from it for `redelivery_s` / 4."""
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture(scope="module")
def standing_worker(shared_house: House) -> WorkerProcess:
    """One worker for all the tests of a module."""
    return shared_house.worker()
