"""Which calibration versions an engine process holds, and for how long."""

import gc
import json
from pathlib import Path

import pytest

from workers.calibrators.protocol import Calibrator
from workers.calibrators.temperature import Temperature
from workers.engine.serving.counters import Counters
from workers.engine.serving.versions import Versions, Watcher

ONE, TWO = "cal-" + "1" * 16, "cal-" + "2" * 16


class Disk:
    """Profiles, and which were read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def load(self, version: str) -> Calibrator:
        self.read.append(version)
        return Temperature(1.5)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def versions(disk: Disk) -> Versions:
    return Versions(disk.load, Counters("demo"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "versions.json"


def loaded(versions: Versions) -> object:
    gc.collect()
    return versions.status()["loaded"]


def test_a_version_that_a_request_asked_for_is_dropped_at_the_next_look_where_it_is_not_wanted(
    versions: Versions, disk: Disk, file: Path
) -> None:
    file.write_text(json.dumps({"versions": [ONE]}))
    watcher = Watcher(file, versions)
    watcher.look()
    assert versions.find(TWO) is not None
    assert loaded(versions) == ["identity", ONE, TWO]
    watcher.look()
    assert loaded(versions) == ["identity", ONE]
    assert versions.counters.registry.get_sample_value("hemostat_serving_profiles_loaded", {"deployment": "demo"}) == 1
    assert versions.find(TWO) is not None
    assert disk.read == [ONE, TWO, TWO]


def test_it_is_not_loaded_again_while_a_request_holds_it(versions: Versions, disk: Disk, file: Path) -> None:
    file.write_text(json.dumps({"versions": []}))
    watcher = Watcher(file, versions)
    watcher.look()
    held = versions.find(ONE)
    for _ in range(3):
        watcher.look()
        assert versions.find(ONE) is held
    assert loaded(versions) == ["identity"]
    assert disk.read == [ONE]


def test_nothing_is_dropped_before_it_was_said_what_is_wanted(versions: Versions, file: Path) -> None:
    versions.find(ONE)
    Watcher(file, versions).look()
    assert loaded(versions) == ["identity", ONE]


def test_what_is_no_longer_wanted_is_dropped_and_what_was_refused_tried_anew(versions: Versions, file: Path) -> None:
    versions.want((ONE, TWO))
    versions.want((TWO,))
    assert loaded(versions) == ["identity", TWO]
