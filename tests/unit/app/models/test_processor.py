import platform
from pathlib import Path

import pytest

from app.models.processor import gpus, has, has_amx

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="features are those of x86")


@pytest.fixture(autouse=True)
def fresh():
    """What this machine's processor can do is asked once a process: not by what a test made it say."""
    has.cache_clear()
    yield
    has.cache_clear()


def test_it_is_what_the_system_tells(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "model name\t: amx_tile 9000\nflags\t\t: fpu avx512f avx\n")
    assert has("avx512f", unknown=False)
    assert not has("avx512", unknown=True), "a whole name, not its beginning"
    assert not has_amx(), "the name of a model is no feature"


def test_where_nothing_is_told_the_caller_says(monkeypatch):
    def missing(*_, **__):
        raise OSError

    monkeypatch.setattr(Path, "read_text", missing)
    assert has("avx512f", unknown=True)
    assert not has("amx_tile", unknown=False)


def test_the_drivers_program_gets_no_secret(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "0, seen:$HEMOSTAT_REDIS_URL:$HEMOSTAT_HOST, 81559"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HEMOSTAT_REDIS_URL", "redis://:word@db")
    monkeypatch.setenv("HEMOSTAT_HOST", "plain")
    assert [gpu.uuid for gpu in gpus()] == ["seen::plain"]
