"""The store under several processes, some of which die."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workers.surgery.store import CheckpointStore

KEY, OTHER = "a" * 64, "b" * 64
# Builds KEY in argv[1], slowly; says when it starts, and what came of it. argv[2] is what it does in the middle.
BUILDER = f"""
import sys, time, json
from pathlib import Path
from workers.surgery.store import CheckpointStore

def build(folder):
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    print("building", flush=True)
    if sys.argv[2] == "hang":
        time.sleep(600)
    time.sleep(0.3)

entry = CheckpointStore(Path(sys.argv[1]), 10_000).get_or_build("{KEY}", build)
print(json.dumps(entry.built), flush=True)
if sys.argv[2] == "hold":
    time.sleep(600)
"""


def start(root: Path, how: str = "build") -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(root), how], stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def writes(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"y" * 1000)


def test_processes_that_want_the_same_build_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(4)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sum("building" in output for output in outputs) == 1
    assert sorted(json.loads(output.splitlines()[-1]) for output in outputs) == [False, False, False, True]
    assert CheckpointStore(tmp_path, 10_000).keys == (KEY,)


def test_a_build_that_was_killed_leaves_nothing_and_can_be_made_again(tmp_path: Path) -> None:
    process = start(tmp_path, "hang")
    assert line(process) == "building"
    store = CheckpointStore(tmp_path, 10_000)
    assert len(list(tmp_path.glob(".staging-*"))) == 1  # it lives, so a new store leaves its work alone
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert store.get(KEY) is None
    CheckpointStore(tmp_path, 10_000)
    assert list(tmp_path.glob(".staging-*")) == []
    with store.get_or_build(KEY, writes) as entry:
        assert entry.built


def test_who_waits_for_a_build_that_is_killed_takes_over(tmp_path: Path) -> None:
    first = start(tmp_path, "hang")
    assert line(first) == "building"
    second = start(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=1)
    first.kill()
    first.communicate()
    output, _ = second.communicate(timeout=240)
    assert output.splitlines() == ["building", "true"]
    assert list(tmp_path.glob(".staging-*")) == []


def test_what_another_process_uses_is_not_evicted_until_it_ends(tmp_path: Path) -> None:
    process = start(tmp_path, "hold")
    try:
        assert (line(process), line(process)) == ("building", "true")
        store = CheckpointStore(tmp_path, 0)
        store.get_or_build(OTHER, writes).release()
        assert store.keys == (KEY, OTHER)
    finally:
        end(process)
    store.get_or_build(OTHER, writes).release()
    assert store.keys == (OTHER,)
