"""Cores of this machine, and processes that start on some of them only. Linux."""

import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path

Cpus = frozenset[int]


def physical_cores() -> list[Cpus]:
    """The CPUs of each physical core that this process may run on."""
    cores: dict[str, set[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text().strip() if siblings.is_file() else str(cpu), set()).add(cpu)
    return [frozenset(cpus) for cpus in cores.values()]


def halves(cores: Sequence[Cpus]) -> tuple[list[Cpus], list[Cpus]]:
    """As many cores on both sides: of an odd number the middle one is left over, a single one is on both."""
    count = max(1, len(cores) // 2)
    return list(cores[:count]), list(cores[-count:])


@contextmanager
def held_to(cpus: AbstractSet[int]) -> Iterator[None]:
    """What this thread starts within the block runs on these CPUs for good; the thread itself for as long as that."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
