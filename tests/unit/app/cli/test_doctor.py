"""What `hemostat doctor` says of the processor, and of what is there."""

import json

import pytest

from app.cli import doctor
from app.settings import Settings


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    return monkeypatch


def test_a_processor_is_named_by_its_best_and_one_without_is_no_reason_to_fail(machine):
    for flags, ok, told in (
        ({"avx2", "avx512bw", "avx512_bf16", "amx_bf16"}, True, "AMX"),
        ({"avx2", "avx512bw", "avx512_bf16"}, True, "AVX-512 BF16"),
        ({"avx2", "avx512bw"}, False, "AVX-512 without BF16"),
        ({"avx2"}, False, "no AVX-512"),
    ):
        machine.setattr(doctor, "has", lambda flag, *, unknown, flags=flags: flag in flags)
        found = doctor._processor()
        assert found.ok is ok
        assert ok or not found.needed
        assert told in found.found
        assert bool(found.remedy) is not ok


def test_what_is_not_told_is_not_held_against_it(machine):
    machine.setattr(doctor, "has", lambda _, *, unknown: unknown)
    assert doctor._processor().ok
    machine.setattr(doctor.platform, "machine", lambda: "aarch64")
    assert doctor._processor().found.endswith("aarch64")


@pytest.fixture
def cuda_build(monkeypatch, tmp_path):
    """The CUDA build's name beside the torch that is installed, on a machine whose driver is old."""
    monkeypatch.setattr(doctor, "_version", lambda package: "0.32.0" if package == "vllm" else None)
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 570.133.20\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_cuda_build_asks_torch_itself_for_a_gpu(cuda_build):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    found = doctor._gpu()
    assert (found.ok, found.needed) == (False, True)
    assert found.found == f"none usable, CUDA {torch.version.cuda}, driver 570.133.20"
    assert "580" in found.remedy


def test_a_cuda_build_blames_the_variable_that_hides_its_gpus(cuda_build, tmp_path, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\necho "0, GPU-aa, 81559"\n')
    for visible, blamed in (("5", True), ("", True), ("0", False)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        found = doctor._gpu()
        assert not found.ok
        assert (f"CUDA_VISIBLE_DEVICES={visible} names no GPU" in found.found) is blamed
        assert ("driver" in found.found + found.remedy) is not blamed


def test_what_is_there_has_no_remedy_in_json_either(tmp_path, capsys):
    doctor.doctor(Settings(home=tmp_path), as_json=True)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {finding["name"] for finding in findings if finding["ok"]} >= {"Python", "fastapi", "disk"}
    assert [finding["name"] for finding in findings if finding["ok"] and finding["remedy"]] == []
    assert next(finding for finding in findings if finding["name"] == "models")["remedy"]


def test_without_a_model_not_everything_is_said_to_be_there(tmp_path, capsys):
    doctor.doctor(Settings(home=tmp_path), as_json=False)
    without = capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "models.toml").write_text('[models.m]\npath = "m"\n')
    doctor.doctor(Settings(home=tmp_path), as_json=False)
    assert "model" in without
    assert "model" not in capsys.readouterr().out.splitlines()[-1]
