"""The devices of this host, and what binds a process to some of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from app.address import loopback, machine
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.placement import CPU
from app.deployments.report import Device, HostReport
from app.models.processor import VISIBLE, VISIBLE_HINT, Gpu, gpus, is_cpu_build, visible_fault, visible_names
from app.models.registry import load_registry
from app.settings import Settings


def own_host(agent: str = "", names: Sequence[str] = ()) -> HostReport:
    """This host with its devices. Raises ENGINE_FAILED as `own_devices` does."""
    return HostReport(
        agent=agent,
        host=socket.gethostname(),
        machine=machine(),
        loopback=loopback(),
        devices=own_devices(),
        names=tuple(names),
    )


def own_devices() -> tuple[Device, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, slices of one by their own names; with a CPU build,
    `cpu`.

    Raises ENGINE_FAILED if nvidia-smi lists no GPU, or not one that the variable names.
    """
    if is_cpu_build():
        return (Device(id=CPU, bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),)
    listed = gpus()
    if not listed:
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            "This worker is for GPUs, and nvidia-smi lists none.",
            hint="Check the driver with `nvidia-smi`. A container needs the driver capability `utility`.",
        )
    if fault := visible_fault():
        raise HemostatError(ErrorCode.ENGINE_FAILED, f"{fault}.", hint=VISIBLE_HINT)
    names = visible_names() or [gpu.number for gpu in listed]
    return tuple(_device(name, listed) for name in names)


def _device(name: str, listed: Sequence[Gpu]) -> Device:
    """A GPU of CUDA_VISIBLE_DEVICES, or a slice of one, whose memory is not listed."""
    gpu = next((gpu for gpu in listed if gpu.answers_to(name)), None)
    return Device(id=name) if gpu is None else Device(id=gpu.number, bytes=gpu.bytes)


def of_worker(settings: Settings) -> tuple[str, ...]:
    """The devices of a worker: as many as the model takes that is split over most, none if nvidia-smi lists none.

    The last one first, which CUDA then takes for a model that is not split: replicas are placed from the first one on.
    """
    try:
        devices = own_devices()
    except HemostatError:
        return ()
    try:
        entries = list(load_registry(settings.models_file).entries.values())
    except HemostatError:
        entries = []
    most = max([settings.ranks, *(entry.sized(settings).ranks for entry in entries)])
    return tuple(device.id for device in reversed(devices[-most:]))


def bound_to(devices: Sequence[str]) -> dict[str, str]:
    """Environment of a process that is to see these devices only. CUDA counts GPUs as nvidia-smi does then."""
    if tuple(devices) in ((), (CPU,)):
        return {}
    return {VISIBLE: ",".join(devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def seen() -> str:
    """The devices that this process is bound to, as its agent has set them."""
    return os.environ.get(VISIBLE, CPU if is_cpu_build() else "")
