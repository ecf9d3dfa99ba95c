"""On which processor a bench ran: its kind as `workers.engine.device.describe_device` tells it, and its name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.bench.rows import Row

ROOT: Final = Path(__file__).resolve().parents[2]
CPUINFO: Final = Path("/proc/cpuinfo")
_NAME: Final = re.compile(r"^model name\s*:\s*(\S.*)$", re.MULTILINE)


def device(environment: Mapping[str, str]) -> str:
    """What processes with this environment run on, as one of them says."""
    script = (
        "from app.settings import Settings\n"
        "from workers.engine.device import describe_device, pick_device\n"
        "print(describe_device(pick_device(Settings())))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=dict(environment))
    return done.stdout.strip().splitlines()[-1]


def name(cpuinfo: str) -> str:
    """The processor's own name out of /proc/cpuinfo; empty where it has none there (Arm)."""
    found = _NAME.search(cpuinfo)
    return " ".join(found[1].replace(",", " ").split()) if found else ""


def row(bench: str, kind: str, cpuinfo: str, cores: int) -> Row:
    """`serve,processor,AMD EPYC 9R45: cpu x86_64 avx512+bf16 2 threads,2,cores`: a CSV's row that says where the others
    are from."""
    return Row(bench, "processor", ": ".join(part for part in (name(cpuinfo), kind) if part), float(cores), "cores")


def here(bench: str, environment: Mapping[str, str]) -> Row:
    """The row of this machine, for processes with this environment."""
    cpuinfo = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""
    return row(bench, device(environment), cpuinfo, len(os.sched_getaffinity(0)))
