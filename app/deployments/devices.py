"""The devices of this host, and what binds a process to some of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from app.address import loopback, machine
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.placement import CPU
from app.deployments.report import Device, HostReport
from app.models.processor import Gpu, gpus, is_cpu_build
from app.models.registry import load_registry
from app.settings import Settings

VISIBLE = "CUDA_VISIBLE_DEVICES"


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
    named = os.environ.get(VISIBLE)
    if named is None:
        return tuple(Device(id=gpu.number, bytes=gpu.bytes) for gpu in listed)
    found = [_device(name.strip(), listed) for name in named.split(",") if name.strip()]
    devices = tuple(device for device in found if device is not None)
    if len(devices) < len(found) or not devices:
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            f"{VISIBLE}={named} names no GPU, or one that nvidia-smi does not list.",
            hint="Give numbers or UUIDs of `nvidia-smi -L`.",
        )
    return devices


def _device(name: str, listed: Sequence[Gpu]) -> Device | None:
    """The one of CUDA_VISIBLE_DEVICES: a number, a UUID or its beginning, or a slice, whose memory is not listed."""
    if name.startswith("MIG-"):
        return Device(id=name)
    of_gpu = (gpu for gpu in listed if name == gpu.number or (name.startswith("GPU-") and gpu.uuid.startswith(name)))
    gpu = next(of_gpu, None)
    return None if gpu is None else Device(id=gpu.number, bytes=gpu.bytes)


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
