from pathlib import Path

import pytest

from app.settings import Settings
from workers.main import describe


@pytest.mark.parametrize("host", ["plain", "a.b-c.example", "odd name_with/slashes", "ümlaut", "---", "x" * 300])
def test_a_worker_is_named_after_its_machine_whatever_that_is_called(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    settings = Settings(home=tmp_path)
    first, second = describe(settings, 8322, ("cpu",)), describe(settings, 8322, ("cpu",))
    assert first.id != second.id
    assert first.devices == ("cpu",)
    assert first.metrics_url == "http://127.0.0.1:8322/metrics"


def test_the_device_is_what_the_settings_say(tmp_path: Path) -> None:
    assert describe(Settings(home=tmp_path, engine_device="cuda"), 1, ()).device == "cuda"


@pytest.mark.parametrize(("answer", "card"), [("echo NVIDIA L4", "NVIDIA L4"), ("exit 9", "GPU")])
def test_a_worker_names_its_gpu_as_the_driver_does(
    answer: str, card: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\n{answer}\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe(Settings(home=tmp_path, engine_device="cuda"), 1, ("1",)).card == card
    assert describe(Settings(home=tmp_path, engine_device="cpu"), 1, ("cpu",)).card == ""
