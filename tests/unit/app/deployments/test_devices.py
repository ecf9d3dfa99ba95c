"""The devices of a host, as a driver's program lists them."""

import os
from pathlib import Path

import psutil
import pytest

from app.contracts.errors import HemostatError
from app.deployments import devices
from app.models.processor import card_name
from app.settings import Settings

LISTED = "0, GPU-aa, 81559\n1, GPU-bb, 24564\n2, GPU-cc, [N/A]"


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}\nEND\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(devices, "is_cpu_build", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def test_a_host_without_gpus_has_one_device_with_its_memory(monkeypatch):
    monkeypatch.setattr(devices, "is_cpu_build", lambda: True)
    (only,) = devices.own_devices()
    assert (only.id, only.bytes) == ("cpu", psutil.virtual_memory().total)
    assert devices.bound_to([only.id]) == {}


def test_gpus_have_their_numbers_and_bytes(gpus):
    assert [(one.id, one.bytes) for one in devices.own_devices()] == [("0", 81559 << 20), ("1", 24564 << 20), ("2", 0)]


def test_only_what_the_agent_may_see_is_announced(gpus):
    for visible, expected in (("1", ["1"]), ("2, 0", ["2", "0"]), ("GPU-bb,GPU-a", ["1", "0"]), ("MIG-x", ["MIG-x"])):
        gpus.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [one.id for one in devices.own_devices()] == expected
    for visible in ("3", "GPU-d", "-1", ""):
        gpus.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(HemostatError, match="nvidia-smi"):
            devices.own_devices()


def test_a_gpu_worker_without_a_driver_that_answers_announces_nothing(gpus, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(HemostatError, match="lists none"):
        devices.own_devices()


def test_containers_of_one_machine_announce_the_same_machine(gpus, tmp_path):
    assert devices.own_host().machine == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    gpus.setattr("app.address._BOOT", tmp_path / "none")
    assert devices.own_host().machine == ""


def test_a_process_sees_its_devices_in_the_order_of_nvidia_smi(gpus):
    bound = devices.bound_to(["1", "2"])
    assert bound == {"CUDA_VISIBLE_DEVICES": "1,2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    gpus.setenv("CUDA_VISIBLE_DEVICES", bound["CUDA_VISIBLE_DEVICES"])
    assert devices.seen() == "1,2"


def test_a_worker_takes_the_last_gpu_and_as_many_as_the_most_split_model(gpus, tmp_path):
    settings = Settings(home=tmp_path)
    assert devices.of_worker(settings) == ("2",)
    assert devices.of_worker(settings.model_copy(update={"pipeline_parallel_size": 2})) == ("2", "1")
    settings.models_file.write_text('[models.a]\npath = "a"\ntensor_parallel_size = 2\n[models.b]\npath = "b"\n')
    assert devices.of_worker(settings) == ("2", "1")
    gpus.setenv("CUDA_VISIBLE_DEVICES", "1,0,2")
    assert devices.of_worker(settings) == ("2", "0")
    settings.models_file.write_text('[models.a]\npath = "a"\ntensor_parallel_size = 16\n')  # on several hosts
    assert devices.of_worker(settings) == ("2", "0", "1")
    gpus.setattr(devices, "is_cpu_build", lambda: True)
    assert devices.of_worker(settings) == ("cpu",)


def test_a_worker_whose_driver_does_not_answer_is_bound_to_nothing(gpus, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert devices.bound_to(devices.of_worker(Settings(home=tmp_path))) == {}


def test_the_card_is_the_first_that_a_process_may_use(gpus, tmp_path):
    answers = 'case "$*" in *--id=1*) echo "NVIDIA L4";; *) echo "NVIDIA H100";; esac'
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{answers}\n")
    assert card_name() == "NVIDIA H100"
    gpus.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert card_name() == "NVIDIA L4"
