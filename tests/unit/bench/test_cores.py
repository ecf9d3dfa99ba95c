"""Workers that are compared have equal shares of the machine."""

import os
import subprocess
import sys

import pytest

from tests.bench.cores import Cpus, halves, held_to, physical_cores

A, B, C, D, E = (frozenset({cpu, cpu + 8}) for cpu in range(5))


@pytest.mark.parametrize(
    ("cores", "first", "second"),
    [([A], [A], [A]), ([A, B], [A], [B]), ([A, B, C, D, E], [A, B], [D, E])],
)
def test_halves_have_as_many_whole_cores(cores: list[Cpus], first: list[Cpus], second: list[Cpus]) -> None:
    assert halves(cores) == (first, second)


def test_every_cpu_belongs_to_one_core() -> None:
    cpus = [cpu for core in physical_cores() for cpu in core]
    assert sorted(cpus) == sorted(os.sched_getaffinity(0))


def test_a_process_stays_where_it_was_started_and_its_parent_does_not() -> None:
    before = os.sched_getaffinity(0)
    one = {min(before)}
    with held_to(one):
        child = subprocess.Popen(
            [sys.executable, "-c", "import os; input(); print(os.sched_getaffinity(0))"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert os.sched_getaffinity(0) == before
    answer, _ = child.communicate("\n")
    assert answer.strip() == str(one)
