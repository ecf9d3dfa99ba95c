"""What a failure of vLLM or torch means for a person: one of our codes, the cause in a line, and what to do.

The messages matched here are those of vLLM 0.32 and torch 2.13.
"""

import errno
import re
from collections.abc import Iterator
from typing import Final

from app.contracts.errors import ErrorCode, HemostatError

MEMORY_HINT: Final = (
    "use a smaller window, lower HEMOSTAT_ENGINE_BATCH_TOKENS or HEMOSTAT_ENGINE_KV_CACHE_BYTES, free memory, "
    "or use a machine with more"
)
SHARE_HINT: Final = (
    "deployments share this GPU; raise HEMOSTAT_SHARE_DIAGNOSIS, HEMOSTAT_SHARE_SHADOW or HEMOSTAT_SHARE_VERIFY, "
    "whichever process it is, or serve fewer models"
)
_MEMORY: Final = re.compile(
    "|".join(
        (
            r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc",
            r"No available memory for the cache blocks|KV cache is needed, which is larger than the available",
            r"Available memory on node .* is less than|Free memory on device .* is less than",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
_WINDOW: Final = re.compile(r"max_model_len .* greater than the derived", re.IGNORECASE | re.DOTALL)
_UNSUPPORTED: Final = re.compile(
    r"Failed to find a kernel|is not supported on|not supported for the current"
    r"|Forced \w+ kernel"
    r"|Model architectures .* are not supported"
    r"|No compressed-tensors compatible scheme|Unknown quantization method|has no vLLM implementation",
    re.IGNORECASE | re.DOTALL,
)
# What torch and Triton say of a GPU that failed, at the message's beginning.
_GPU: Final = re.compile(r"CUDA (driver )?error|Triton Error \[CUDA\]")
_VALUE_ERROR: Final = re.compile(r"Value error, (?P<message>.*?)(?: \[type=|$)", re.DOTALL)
_LONGEST: Final = 400


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or the accelerator; causes are looked at too."""
    return any(_says_memory(cause) for cause in causes(error))


def is_gpu_failure(error: BaseException) -> bool:
    """Whether a GPU failed; causes are looked at too. After an illegal access or an assertion there every later
    operator of this process fails."""
    return any(_says_gpu(cause) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what caused it, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _says_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ValueError) and bool(_MEMORY.search(str(error)))


def _says_gpu(error: BaseException) -> bool:
    if any(base.__name__ == "AcceleratorError" for base in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and bool(_GPU.match(str(error)))


def translate(error: BaseException, doing: str) -> HemostatError:
    """The error to raise, `from error`, where vLLM or torch failed while `doing` ("starting an engine for x").

    ENGINE_OUT_OF_MEMORY, WINDOW_TOO_LARGE, CHECKPOINT_UNSUPPORTED (an architecture or packing that this build of vLLM
    has no kernel for), else ENGINE_FAILED. A `HemostatError` is returned as it is.
    """
    if isinstance(error, HemostatError):
        return error
    cause = describe(error)
    if is_out_of_memory(error):
        return HemostatError(ErrorCode.ENGINE_OUT_OF_MEMORY, f"memory ran out {doing}: {cause}", hint=MEMORY_HINT)
    text = str(error)
    if _WINDOW.search(text):
        return HemostatError(
            ErrorCode.WINDOW_TOO_LARGE, f"{doing}: {cause}", hint="use a window within the model's context"
        )
    if isinstance(error, NotImplementedError) or _UNSUPPORTED.search(text):
        return HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"vLLM cannot run the checkpoint on this machine, {doing}: {cause}",
            hint="compare the dequantized weights, or run the worker on another kind of machine",
        )
    return HemostatError(
        ErrorCode.ENGINE_FAILED, f"vLLM failed {doing}: {cause}", hint="the worker's log has the traceback"
    )


def describe(error: BaseException) -> str:
    """Type and message in one line; of a pydantic error the message that the validator gave."""
    text = str(error)
    told = _VALUE_ERROR.search(text)
    line = " ".join((told["message"] if told else text).split())
    if len(line) > _LONGEST:
        line = line[: _LONGEST - 1] + "…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
