"""The embedded Valkey: found, shared, durable, and gone with its parent."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

from app.jobs import embedded
from app.jobs.connection import embedded_socket
from app.jobs.embedded import (
    PATIENT_PROBE_S,
    PROBE_S,
    EmbeddedValkey,
    EmbeddedValkeyError,
    ValkeySilentError,
)
from app.settings import Settings
from tests.support.worker import gone, halt, wait_for

# Another process that starts the server of a home.
PROGRAM = """
import sys, time
from pathlib import Path
from app.jobs.embedded import EmbeddedValkey
from app.settings import Settings
v = EmbeddedValkey(Settings(home=Path(sys.argv[1])))
v.start()
"""


def ping(settings: Settings) -> redis.Redis:
    client = redis.Redis(unix_socket_path=str(embedded_socket(settings)), decode_responses=True)
    assert client.ping()
    return client


def started(valkey: EmbeddedValkey) -> bool:
    try:
        valkey.start()
    except ValkeySilentError:
        return False
    return True


def test_it_starts_answers_and_stops(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with EmbeddedValkey(settings) as valkey:
        with ping(settings) as client:
            assert client.config_get("appendonly", "appendfsync", "port") == {
                "appendonly": "yes",
                "appendfsync": "always",
                "port": "0",
            }
        assert valkey.pid is not None
        mode = embedded_socket(settings).stat().st_mode
        assert stat.S_IMODE(mode) == 0o700
        assert stat.S_IMODE((tmp_path / "valkey").stat().st_mode) == 0o700
        pid = valkey.pid
    assert not psutil.pid_exists(pid)
    assert valkey.pid is None


def test_a_second_one_uses_the_first_and_does_not_end_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with EmbeddedValkey(settings) as first:
        with EmbeddedValkey(settings) as second:
            assert first.owned
            assert not second.owned
        ping(settings).close()


def test_of_several_processes_at_once_one_starts_the_server(tmp_path: Path) -> None:
    program = PROGRAM + "print(v.owned, flush=True); sys.stdin.read(); v.stop()"
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[4],
            text=True,
        )
        for _ in range(4)
    ]
    try:
        owned = [starter.stdout.readline().strip() for starter in starters if starter.stdout is not None]
        assert sorted(owned) == ["False", "False", "False", "True"]
    finally:
        for starter in starters:
            starter.communicate(input="", timeout=60)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_what_was_written_is_there_after_a_restart(tmp_path: Path, how: str) -> None:
    settings = Settings(home=tmp_path)
    valkey = EmbeddedValkey(settings)
    valkey.start()
    with ping(settings) as client:
        for number in range(50):
            client.set(f"key-{number}", number)
    if how == "kill":
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGKILL)
    else:
        valkey.stop()
    valkey.start()
    with ping(settings) as client:
        assert client.dbsize() == 50
    valkey.stop()


def test_it_goes_with_its_parent_however_that_goes(tmp_path: Path) -> None:
    program = PROGRAM + "print(v.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[4],
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.communicate()
    wait_for(lambda: gone(pid), what="end of the server")
    with EmbeddedValkey(Settings(home=tmp_path)) as valkey:
        assert valkey.owned, "the lock went with the server"


def test_a_home_with_a_long_path_works(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / ("x" * 120))
    path = embedded_socket(settings)
    with EmbeddedValkey(settings):
        ping(settings).close()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()
    assert (settings.home / "valkey" / "appendonlydir").is_dir()


def test_a_short_folder_that_somebody_else_put_there_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / ("y" * 120))
    folder = embedded_socket(settings).parent
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(EmbeddedValkeyError, match="not a folder of this user"):
            EmbeddedValkey(settings).start()
    finally:
        folder.unlink()


def test_a_server_that_hangs_is_told_soon(tmp_path: Path) -> None:
    with EmbeddedValkey(Settings(home=tmp_path)) as valkey:
        assert valkey.pid is not None
        halt(valkey.pid)
        try:
            began = time.monotonic()
            with pytest.raises(ValkeySilentError, match=rf"process {valkey.pid}\) runs, but does not answer"):
                valkey.start()
            first = time.monotonic() - began
            assert first >= PROBE_S + PATIENT_PROBE_S
            began = time.monotonic()
            with pytest.raises(ValkeySilentError):
                valkey.start()
            assert time.monotonic() - began < first, "one that is silent is asked briefly"
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        wait_for(lambda: started(valkey), what="an answer")
        ping(Settings(home=tmp_path)).close()


def test_a_server_that_cannot_start_says_why_also_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "valkey" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("this is no manifest\n")
    with pytest.raises(EmbeddedValkeyError, match=r"ended at start:\n(.|\n)*manifest"):
        EmbeddedValkey(Settings(home=tmp_path)).start()
    with monkeypatch.context() as full:
        full.setattr(embedded, "NO_SPACE_BYTES", 2**63)
        with pytest.raises(EmbeddedValkeyError, match=r"disk of .*valkey is full; free space there"):
            EmbeddedValkey(Settings(home=tmp_path)).start()
    shutil.rmtree(folder)
    with EmbeddedValkey(Settings(home=tmp_path)):
        ping(Settings(home=tmp_path)).close()
