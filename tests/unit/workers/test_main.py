import os
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode
from app.deployments import devices
from app.jobs.connection import connect
from app.settings import Settings
from tests.support.refusals import refused
from workers.engine import device
from workers.main import DEFAULT_HANDLERS, describe, serve, with_device

# What the worker asks of torch. `PYTHONPATH` puts it before the installed one.
TORCH = """
from types import SimpleNamespace
__version__ = "2.13.0+cu130"
version = SimpleNamespace(cuda="13.0")
cuda = SimpleNamespace(is_available=lambda: {usable}, get_device_name=lambda: "NVIDIA L4")
"""


@pytest.mark.parametrize("host", ["plain", "a.b-c.example", "odd name_with/slashes", "ümlaut", "---", "x" * 300])
def test_a_worker_is_named_after_its_machine_whatever_that_is_called(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    settings = Settings(home=tmp_path)
    first, second = (describe(settings, 8322) for _ in range(2))
    assert first.id != second.id
    assert first.metrics_url == "http://127.0.0.1:8322/metrics"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The program of an old driver, the only one on the path."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 570.133.20\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


@pytest.mark.parametrize(("answer", "card"), [("echo NVIDIA L4", "NVIDIA L4"), ("exit 9", "GPU")])
async def test_a_worker_names_its_gpu_as_the_driver_does(answer, card, driver, monkeypatch):
    driver.write_text(f"#!/bin/sh\n{answer}\n")
    (driver.parent / "torch.py").write_text(TORCH.format(usable=True))
    monkeypatch.setenv("PYTHONPATH", str(driver.parent))
    settings = Settings(home=driver.parent)
    client, info = connect(settings), describe(settings, 1)
    on_cpu = await with_device(client, settings, info)
    assert (on_cpu.id, on_cpu.device, on_cpu.devices, on_cpu.card) == (info.id, "cpu", ("cpu",), "")
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    on_gpu = await with_device(client, settings, info)
    assert (on_gpu.device, on_gpu.card, on_gpu.starting) == ("cuda", card, False)


@pytest.mark.parametrize(
    ("torch", "told"),
    [
        (TORCH.format(usable=False), r"torch 2\.13\.0\+cu130 is built for CUDA 13\.0, but finds no usable GPU"),
        ("raise OSError", "torch does not start"),
    ],
)
async def test_a_worker_of_the_cuda_build_without_a_usable_gpu_takes_no_job(
    torch: str, told: str, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no Redis here, which keeps no worker from asking for its device."""
    (driver.parent / "torch.py").write_text(torch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(driver.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    with refused(ErrorCode.ENGINE_FAILED, match=rf"{told}; the driver is 570\.133\.20") as caught:
        await serve(Settings(home=driver.parent, worker_metrics_port=0), DEFAULT_HANDLERS)
    assert "580" in caught.value.hint


@pytest.fixture
def blind(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The CUDA build on a machine with one GPU, of which torch sees none. The folder of both programs."""
    driver.write_text('#!/bin/sh\necho "0, GPU-aa, 81559"\n')
    (driver.parent / "torch.py").write_text(TORCH.format(usable=False))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(driver.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    monkeypatch.setattr(devices, "is_cpu_build", lambda: False)
    return driver.parent


@pytest.mark.parametrize("visible", ["7", "GPU-bb", ""])
async def test_a_worker_whose_variable_hides_every_gpu_names_it_and_not_the_driver(
    visible: str, blind: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with refused(ErrorCode.ENGINE_FAILED, match=rf"CUDA_VISIBLE_DEVICES={visible} names no GPU") as caught:
        await serve(Settings(home=blind, worker_metrics_port=0), DEFAULT_HANDLERS)
    assert "driver" not in f"{caught.value.detail} {caught.value.hint}"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    with refused(ErrorCode.ENGINE_FAILED, match="the driver is"):
        await serve(Settings(home=blind, worker_metrics_port=0), DEFAULT_HANDLERS)


async def test_a_worker_of_the_other_build_than_the_settings_ask_for_takes_no_job(tmp_path: Path) -> None:
    with refused(ErrorCode.ENGINE_FAILED, match="runs on cpu only"):
        await serve(Settings(home=tmp_path, engine_device="cuda", worker_metrics_port=0), DEFAULT_HANDLERS)


def test_a_usable_gpu_is_found_without_torch_in_this_process(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (driver.parent / "torch.py").write_text(TORCH.format(usable=True))
    monkeypatch.setenv("PYTHONPATH", str(driver.parent))
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    assert device.device_to_come(Settings(home=driver.parent)) == "cuda"
