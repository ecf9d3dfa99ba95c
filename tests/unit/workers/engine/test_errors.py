import errno

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.engine.errors import describe, is_out_of_memory, translate


def torch_allocation_failure() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ValueError("To serve at least one request with the model's max seq len (4096), (1.0 GiB KV cache is needed, "
                   "which is larger than the available KV cache memory (0.5 GiB)."),
        ValueError("Available memory on node 0 (22.64/23.43 GiB) on kv cache allocation is less than requested memory "
                   "for kv (1024.0 GiB)."),
        ValueError("Free memory on device cuda:0 (1.00/80.00 GiB) on startup is less than desired GPU memory"),
    ],
)  # fmt: skip
def test_memory_that_ran_out_is_told_as_such(error: Exception) -> None:
    told = translate(error, "while scoring")
    assert told.code is ErrorCode.ENGINE_OUT_OF_MEMORY
    assert "HEMOSTAT_ENGINE_BATCH_TOKENS" in told.hint
    assert "while scoring" in told.detail


def test_torchs_own_allocator_is_recognised() -> None:
    assert is_out_of_memory(torch_allocation_failure())


def test_a_cause_further_down_is_found() -> None:
    outer = RuntimeError("Engine core initialization failed.")
    outer.__cause__ = MemoryError()
    assert is_out_of_memory(outer)
    assert not is_out_of_memory(RuntimeError("something else"))


def test_a_window_beyond_the_context() -> None:
    text = (
        "1 validation error for ModelConfig\n  Value error, User-specified max_model_len (4096) is greater than the "
        "derived max_model_len (max_position_embeddings=256.0 or model_max_length=None in model's config.json). "
        "[type=value_error, input_value=ArgsKwargs((), {'model': 'secret'}), input_type=ArgsKwargs]"
    )
    told = translate(ValueError(text), "while starting")
    assert told.code is ErrorCode.WINDOW_TOO_LARGE
    assert "max_position_embeddings=256" in told.detail
    assert "secret" not in told.detail


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Failed to find a kernel that can implement the WNA16 linear layer. Reasons: …"),
        NotImplementedError("No compressed-tensors compatible scheme was found."),
    ],
)
def test_what_has_no_kernel_here_is_unsupported(error: Exception) -> None:
    assert translate(error, "while starting").code is ErrorCode.CHECKPOINT_UNSUPPORTED


def test_anything_else_is_an_engine_failure_with_its_cause() -> None:
    told = translate(AssertionError("expert parallel group is not initialized"), "while starting")
    assert told.code is ErrorCode.ENGINE_FAILED
    assert "AssertionError: expert parallel group is not initialized" in told.detail


def test_our_own_errors_pass_unchanged() -> None:
    error = HemostatError(ErrorCode.CHECKPOINT_CORRUPT, "x")
    assert translate(error, "while starting") is error


def test_a_description_is_one_short_line() -> None:
    line = describe(ValueError("a\n b  c" + "x" * 1000))
    assert line.startswith("ValueError: a b cxxx")
    assert "\n" not in line
    assert len(line) <= 420
    assert describe(KeyError()) == "KeyError"
