"""Ten minutes of jobs and streams: `make soak`. Writes soak.csv; ends with 1 if something grows beyond its noise.

Every five seconds: resident memory and descriptors of each process, keys and memory of Valkey, files below the home.
Clients delete their jobs, so that nothing has a reason to grow. The first 40 % of the time warms up. The rest is cut
into 24 blocks; through their medians goes a line of Theil and Sen. It is red if the lower 99 % limit of its slope, over
the whole time, is more than 2 % of the level and more than the least that is worth a word (8 MB, 3 of what is counted).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import psutil
from scipy.stats import theilslopes

from tests.bench.chaos import PATIENCE_S, tell
from tests.bench.fleet import ROLES, Fleet, Load
from tests.bench.rows import Row, write

CSV: Final = Path(__file__).with_suffix(".csv")
EVERY_S: Final = 5.0
WARM: Final = 0.4
BLOCKS: Final = 24
SHARE: Final = 0.02
LEAST: Final = {"MB": 8.0, "1": 3.0}
MB: Final = 1e6
# What the shadow keeps of scored requests reaches its bound in the time of warming up.
SOON_FULL: Final = {"shadow_window": 64, "shadow_refit_tokens": 2000, "shadow_reservoir_tokens": 1000}
SILENT: Final = re.compile(r"^hemostat_worker_job_silent_seconds (\S+)$", re.MULTILINE)
Series = dict[tuple[str, str, str], list[tuple[float, float]]]  # (case, metric, unit) to (seconds, value)


def sample(fleet: Fleet, processes: dict[str, psutil.Process]) -> dict[tuple[str, str, str], float]:
    """One look at everything. Raises `psutil.NoSuchProcess` if a process has ended."""
    found: dict[tuple[str, str, str], float] = {}
    for role, process in processes.items():
        found[role, "resident", "MB"] = process.memory_info().rss / MB
        with contextlib.suppress(psutil.AccessDenied):  # only the superuser sees them
            found[role, "descriptors", "1"] = process.num_fds()
    with fleet.redis() as client:
        found["valkey", "keys", "1"] = client.dbsize()
        found["valkey", "used_memory", "MB"] = client.info("memory")["used_memory"] / MB
    found["home", "files", "1"] = sum(len(files) for _, _, files in os.walk(fleet.home))
    return found


def silent_s(fleet: Fleet) -> float:
    """For how long the running job has given no sign of progress."""
    try:
        metrics = httpx.get(f"http://127.0.0.1:{fleet.settings.worker_metrics_port}/metrics", timeout=30).text
    except httpx.TransportError:
        return 0.0
    return max((float(one) for one in SILENT.findall(metrics)), default=0.0)


def trend(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Level, and slope per minute with its lower 99 % limit, of (seconds, value)."""
    blocks = np.array_split(np.asarray(points), min(BLOCKS, len(points)))
    seconds, values = np.asarray([np.median(block, axis=0) for block in blocks]).T
    slope, _, low, _ = theilslopes(values, seconds / 60, alpha=0.99)
    return float(np.median(values)), float(slope), float(low)


def rows_of(series: Series) -> tuple[list[Row], list[str]]:
    """The rows, and what grows."""
    rows: list[Row] = []
    grows: list[str] = []
    for (case, metric, unit), points in series.items():
        level, slope, low = trend(points)
        minutes = (points[-1][0] - points[0][0]) / 60
        rows.append(Row("soak", case, metric, level, unit))
        rows.append(Row("soak", case, f"{metric}_per_minute", slope, f"{unit}/min"))
        rows.append(Row("soak", case, f"{metric}_low_per_minute", low, f"{unit}/min"))
        if low * minutes > max(SHARE * level, LEAST[unit]):
            grows.append(f"{case} {metric}: at least {low:.3g} {unit} per minute at {level:.4g}")
    return rows, grows


async def soak(fleet: Fleet, seconds: float) -> tuple[list[Row], list[str]]:
    """So long under load: the rows, and what is wrong."""
    load = Load(fleet, jobs=3, streams=8, remove=True)
    began = time.monotonic()
    series: Series = defaultdict(list)
    silence = 0.0
    processes: dict[str, psutil.Process] = {}
    while (spent := time.monotonic() - began) < seconds:
        silence = max(silence, await asyncio.to_thread(silent_s, fleet))
        if spent >= WARM * seconds:
            processes = processes or {role: one for role in ROLES if (one := fleet.process(role)) is not None}
            for name, value in (await asyncio.to_thread(sample, fleet, processes)).items():
                series[name].append((spent, value))
        await asyncio.sleep(EVERY_S)
    await load.end(PATIENCE_S)
    rows, wrong = rows_of(series)
    wrong += [*load.wrong, *load.streams.wrong]
    wrong += [f"no {role} was found" for role in ROLES if role not in processes]
    ends = load.streams.ends
    wrong += [f"not every stream was done: {dict(ends)}"] if ends.total() != ends["done"] else []
    rows += [
        Row("soak", "load", "seconds", seconds, "s"),
        Row("soak", "load", "jobs", len(load.accepted), "1"),
        Row("soak", "load", "streams", ends.total(), "1"),
        Row("soak", "worker", "longest_silence", silence, "s"),
    ]
    return rows, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hemostat-soak-") as folder:
        fleet = Fleet(Path(folder), shadow_expiry_s=min(60.0, given.seconds / 10), **SOON_FULL)
        try:
            fleet.start()
            tell("up")
            rows, wrong = asyncio.run(soak(fleet, given.seconds))
            status = fleet.stop()
            wrong += [f"hemostat up ended with {status}"] if status else []
        finally:
            fleet.kill()
    write(given.csv, rows)
    for line in wrong:
        tell(f"RED {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
