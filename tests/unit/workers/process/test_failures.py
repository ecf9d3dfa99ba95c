import errno
import signal

import pytest
import torch

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from workers.engine.errors import translate
from workers.process.failures import explain, explain_exit, safe_traceback, sanitise, spoils, texts_of

TEXT = "The heron waits where the river forgets its own name."


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error as it comes out of a frame, with its traceback."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_an_error_for_people_passes_as_it_is() -> None:
    error = HemostatError(ErrorCode.HEAD_MISMATCH, "off by 3", hint="use another", pointer="/candidate")
    failure = explain(raised(error))
    assert failure.error.code is ErrorCode.HEAD_MISMATCH
    assert (failure.error.detail, failure.error.hint) == ("off by 3", "use another")
    assert failure.error.title == CATALOGUE[ErrorCode.HEAD_MISMATCH].title
    assert not failure.spoiled


def test_an_error_for_people_is_found_behind_a_wrapper() -> None:
    inner = raised(HemostatError(ErrorCode.CHECKPOINT_CORRUPT, "shard 2 is cut off"))
    assert explain(raised(RuntimeError("engine core failed"), inner)).error.code is ErrorCode.CHECKPOINT_CORRUPT


def test_a_bug_met_while_handling_an_error_is_a_bug() -> None:
    try:
        try:
            raise HemostatError(ErrorCode.CHECKPOINT_CORRUPT, "shard 2 is cut off")
        except HemostatError:
            {}["key"]
    except KeyError as error:
        assert explain(error).error.code is ErrorCode.INTERNAL


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
    ],
)
def test_lack_of_memory_is_told_apart(error: Exception) -> None:
    for met in (raised(error), raised(RuntimeError("Engine core initialization failed"), error)):
        failure = explain(met)
        assert failure.error.code is ErrorCode.ENGINE_OUT_OF_MEMORY
        assert "smaller window" in failure.error.hint
        assert failure.spoiled


def test_torch_running_out_of_memory_is_told_apart() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58, dtype=torch.uint8)
    assert explain(caught.value).error.code is ErrorCode.ENGINE_OUT_OF_MEMORY
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
    assert explain(raised(torch.OutOfMemoryError("CUDA"))).error.code is ErrorCode.ENGINE_OUT_OF_MEMORY


def test_after_the_engine_ran_out_of_memory_the_next_job_has_another_process() -> None:
    asked = HemostatError(ErrorCode.ENGINE_OUT_OF_MEMORY, "the model needs about 17 GB")
    caused = HemostatError(ErrorCode.CHECKPOINT_UNSUPPORTED, "vLLM cannot run it")
    for error in (raised(asked), raised(caused, MemoryError())):
        failure = explain(error)
        assert failure.error.detail == error.detail
        assert failure.spoiled


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA driver error: unspecified launch failure"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    ],
)
def test_after_a_gpu_failed_the_next_job_has_another_process(error: Exception) -> None:
    translated = raised(translate(error, "while scoring"), raised(error))
    for met in (translated, raised(error), raised(RuntimeError("engine core failed"), translated)):
        failure = explain(met)
        assert failure.spoiled
        assert spoils(met)
        assert str(error).partition("\n")[0] in failure.error.detail
    assert explain(translated).error.code is ErrorCode.ENGINE_FAILED


def test_what_only_speaks_of_a_gpu_leaves_the_process_as_it_was() -> None:
    quoted = raised(translate(ValueError("no CUDA error: a typing error"), "while scoring"), ValueError("odd"))
    assert not explain(quoted).spoiled
    assert not spoils(quoted)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        RuntimeError("I/O error: File too large (os error 27)"),
    ],
)
def test_a_full_disk_is_told_apart(error: Exception) -> None:
    assert explain(raised(error)).error.code is ErrorCode.DISK_FULL
    assert explain(raised(ValueError("cannot save"), error)).error.code is ErrorCode.DISK_FULL


def test_a_real_full_disk_is_told_apart() -> None:
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
        file.write(b"x")
    assert explain(caught.value).error.code is ErrorCode.DISK_FULL


def test_an_error_out_of_torch_is_the_engines_and_any_other_is_internal() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Linear(4, 2)(torch.ones(2, 3))
    failure = explain(caught.value)
    assert failure.error.code is ErrorCode.ENGINE_FAILED
    assert "shapes" in failure.error.detail
    failure = explain(raised(ValueError("odd")))
    assert failure.error.code is ErrorCode.INTERNAL
    assert failure.error.detail.startswith(f"ValueError in {__name__}:")
    assert failure.error.detail.endswith(": odd")
    assert failure.spoiled


def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(ImportError) as caught:
        __import__("no_such_engine")
    error = explain(caught.value).error
    assert error.code is ErrorCode.ENGINE_FAILED
    assert "no_such_engine" in error.detail
    assert "make setup" in error.hint


@pytest.mark.parametrize(
    "message",
    [
        TEXT,
        f"cannot digest {TEXT}",
        f"bad input at {TEXT[10:40]}",
        f"token {TEXT[3:30]!r} is odd",
    ],
)
def test_no_message_repeats_a_document(message: str) -> None:
    for told in (
        explain(raised(ValueError(message)), [TEXT]).error.detail,
        safe_traceback(raised(RuntimeError("outer"), raised(ValueError(message))), [TEXT]),
    ):
        assert not any(TEXT[start : start + 12] in told for start in range(len(TEXT) - 12))


def test_an_unrelated_document_does_not_silence_a_message() -> None:
    assert sanitise("mat1 and mat2 shapes cannot be multiplied", [TEXT, " "]) == (
        "mat1 and mat2 shapes cannot be multiplied"
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("first\nsecond", "first"),
        ("cannot open /home/somebody/models/a/model.safetensors: gone", "cannot open model.safetensors: gone"),
        ("prompt '" + "x" * 40 + "' is odd", "prompt … is odd"),
        ("ids [" + "1, " * 100 + "1] are odd", "ids … are odd"),
        ("bell \x07 rings", "bell � rings"),
        ("a" * 400, "a" * 299 + "…"),
    ],
)
def test_a_message_is_cut_down(message: str, told: str) -> None:
    assert sanitise(message) == told


def test_a_traceback_has_frames_of_the_whole_chain_and_no_values() -> None:
    text = safe_traceback(raised(RuntimeError("outer"), raised(KeyError("inner"))))
    assert text.count("in raised") == 2
    assert text.index("KeyError") < text.index("RuntimeError")


@pytest.mark.parametrize(
    ("returncode", "code", "told"),
    [
        (-signal.SIGKILL, ErrorCode.ENGINE_OUT_OF_MEMORY, "killed from outside"),
        (-signal.SIGSEGV, ErrorCode.ENGINE_FAILED, "SIGSEGV"),
        (1, ErrorCode.ENGINE_FAILED, "status 1"),
        (None, ErrorCode.ENGINE_FAILED, "ended in mid-job"),
    ],
)
def test_the_way_a_process_died_is_told(returncode: int | None, code: ErrorCode, told: str) -> None:
    error = explain_exit(returncode)
    assert error.code is code
    assert told in error.detail
    assert error.hint


def test_the_texts_of_a_request_are_found_wherever_they_are() -> None:
    source = {
        "source": "inline",
        "documents": [
            {"id": "a", "text": "one"},
            {"id": "b", "text": None, "messages": [{"role": "user", "content": "two"}]},
        ],
    }
    assert list(texts_of(source)) == ["one", "two"]
    assert list(texts_of(None)) == []
