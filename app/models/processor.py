"""What this machine's processor can do, as far as it decides which of vLLM's kernels run."""

import platform
from functools import cache
from pathlib import Path


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
