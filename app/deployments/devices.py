"""The devices of this host, and what binds a process to some of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.placement import CPU
from app.deployments.report import Device, HostReport
from app.models.processor import gpus, is_cpu_build

VISIBLE = "CUDA_VISIBLE_DEVICES"


def own_host(agent: str = "", names: Sequence[str] = ()) -> HostReport:
    """This host with its devices. Raises ENGINE_FAILED as `own_devices` does."""
    return HostReport(agent=agent, host=socket.gethostname(), devices=own_devices(), names=tuple(names))


def own_devices() -> tuple[Device, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process; with a CPU build, or without GPUs, `cpu`.

    Raises ENGINE_FAILED if that variable names a GPU that nvidia-smi does not list.
    """
    listed = [] if is_cpu_build() else gpus()
    if not listed:
        return (Device(id=CPU, bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),)
    named = os.environ.get(VISIBLE)
    if named is None:
        return tuple(Device(id=gpu.number, bytes=gpu.bytes) for gpu in listed)
    known = {name: Device(id=gpu.number, bytes=gpu.bytes) for gpu in listed for name in (gpu.number, gpu.uuid)}
    wanted = [name.strip() for name in named.split(",") if name.strip()]
    missing = [name for name in wanted if name not in known]
    if missing or not wanted:
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            f"{VISIBLE}={named} names no GPU, or one that nvidia-smi does not list.",
            hint="Give numbers or UUIDs of `nvidia-smi -L`.",
        )
    return tuple(known[name] for name in wanted)


def bound_to(devices: Sequence[str]) -> dict[str, str]:
    """Environment of a process that is to see these devices only. CUDA counts GPUs as nvidia-smi does then."""
    if tuple(devices) == (CPU,):
        return {}
    return {VISIBLE: ",".join(devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def seen() -> str:
    """The devices that this process is bound to, as its agent has set them."""
    return os.environ.get(VISIBLE, CPU if is_cpu_build() else "")
