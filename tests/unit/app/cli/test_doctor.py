"""What `hemostat doctor` says of the processor."""

import pytest

from app.cli import doctor


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    return monkeypatch


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"avx2", "avx512bw", "avx512_bf16", "amx_bf16"}, "AMX"),
        ({"avx2", "avx512bw", "avx512_bf16"}, "AVX-512 BF16"),
        ({"avx2", "avx512bw"}, "AVX-512"),
    ],
)
def test_a_processor_that_multiplies_bf16_is_named_by_its_best(
    machine: pytest.MonkeyPatch, flags: set[str], told: str
) -> None:
    machine.setattr(doctor, "has", lambda flag, *, unknown: flag in flags)
    found = doctor._processor()
    assert found.ok
    assert found.found.endswith(f" cores, {told}")


def test_one_without_is_told_with_what_that_costs_and_is_no_reason_to_fail(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(doctor, "has", lambda flag, *, unknown: flag == "avx2")
    found = doctor._processor()
    assert (found.ok, found.needed) == (False, False)
    assert "no AVX-512" in found.found
    assert "times as long" in found.remedy


def test_what_is_not_told_is_not_held_against_it(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(doctor, "has", lambda _, *, unknown: unknown)
    assert doctor._processor().ok
    machine.setattr(doctor.platform, "machine", lambda: "aarch64")
    assert doctor._processor().found.endswith("aarch64")
