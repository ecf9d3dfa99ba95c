"""`make bench`: measures scoring, divergence and whole compare jobs, and writes tests/bench/results/PROCESSOR.csv.

A kind of processor (instruction sets and threads, or the GPU) has a file of its own, so that numbers of one are never
mixed with those of another, and measuring elsewhere leaves what is there.

Some numbers have a bar; the rows beside them say whether it is met on the machine at hand, and a miss stays there.
Those of compare jobs are multiples of what llama.cpp's KLD tool takes for the same model, end to end: 177 scored
tokens/s for both passes, 340 where its base file is ready. That was two cores with AVX-512 BF16; where the tool was run
on another kind of processor (llama_cpp.csv), rows say how many times its rate there a job reaches.

Every case runs in a process of its own with the environment of a worker's child, so that what is measured is what
runs. Nothing else should run on the machine meanwhile. `python -m tests.bench.run CASE …` runs some of them and leaves
the rows of the others as they are.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.llama_cpp import BOTH_PASSES, STORED_REFERENCE, multiples
from tests.bench.processor import device
from tests.bench.rows import Row, parse, read, replaced, write
from workers.engine.environment import child_environment

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results")
CASES = (
    "compare",
    "compare_long",
    "engine_changes",
    "prompt_logprobs",
    "memory_10k",
    "memory_100k",
    "sweep",
    "sweep_two_workers",
    "attribute",
    "verified",
    "calibrate",
)
# (bench, case, metric): (bound, whether the number must not be below it)
BARS = {
    ("compare", "cold", "job_tokens_per_second"): (BOTH_PASSES * 177, True),
    ("compare", "cold_long", "job_tokens_per_second"): (BOTH_PASSES * 177, True),
    ("compare", "stored_reference", "job_tokens_per_second"): (STORED_REFERENCE * 340, True),
    ("compare", "stored_reference_long", "job_tokens_per_second"): (STORED_REFERENCE * 340, True),
    ("attribute", "30_layers", "search_forward_passes"): (32, False),
    ("attribute", "30_layers", "search_engine_passes"): (32, False),
    ("sweep", "12_points", "forward_ratio"): (1.7, False),
    # Flat memory: nothing is held for each point, swap or token beyond what a report needs.
    ("sweep", "12_points", "resident_last_over_fourth"): (1.05, False),
    ("attribute", "30_layers", "resident_last_over_first"): (1.05, False),
    ("memory", "100k_over_10k", "peak_resident_ratio"): (1.05, False),
    # Over one worker on half of the cores, as each of the two is: see tests.bench.sharing.
    ("sweep", "two_workers", "job_ratio"): (0.6, False),
}


def main(names: list[str]) -> None:
    """Runs the named cases, or all, in turn; a case that fails ends the bench and nothing is written."""
    rows: list[Row] = []
    environment = child_environment() | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    kind = device(environment)
    file = results_file(kind)
    for name in names or CASES:
        start = time.perf_counter()
        sys.stderr.write(f"{name} …\n")
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.cases", name],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
            env=environment,
        )
        found = parse(done.stdout)
        rows += found
        for row in found:
            sys.stderr.write(f"  {row.case:28} {row.metric:28} {row.value:14.6g} {row.unit}\n")
        sys.stderr.write(f"  ({time.perf_counter() - start:.0f} s)\n")
    kept = replaced(read(file), rows) if names and file.exists() else rows
    ratios = derived(kept, kind)
    again = {row[:3] for row in ratios}
    file.parent.mkdir(exist_ok=True)
    write(file, [row for row in kept if row[:3] not in again] + ratios)
    rows += ratios
    for row in rows:
        sys.stdout.write(f"{row.bench},{row.case},{row.metric},{row.value:.6g},{row.unit}\n")


def results_file(kind: str) -> Path:
    """`cpu-x86_64-avx512-bf16-2-threads.csv` for `cpu x86_64 avx512+bf16 2 threads`."""
    return RESULTS / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', kind).strip('-')}.csv"


def derived(rows: list[Row], kind: str) -> list[Row]:
    """Ratios between cases, and to llama.cpp's tool on this kind of processor."""
    values = {(row.bench, row.case, row.metric): row.value for row in rows}
    scored = values.get(("compare", "stored_reference", "tokens_per_second"))
    found = []
    for name in ("prompt_logprobs", "prompt_logprobs_flat"):
        slow = values.get(("engine", name, "tokens_per_second"))
        if scored and slow:
            found.append(Row("compare", "stored_reference", f"{name}_ratio", scored / slow, "ratio"))
    small, large = (values.get(("memory", size, "peak_resident")) for size in ("10k", "100k"))
    if small and large:
        found.append(Row("memory", "100k_over_10k", "peak_resident_ratio", large / small, "ratio"))
    found += multiples(rows, kind)
    anew = {row[:3] for row in found}
    return found + held([*(row for row in rows if row[:3] not in anew), *found])


def held(rows: list[Row]) -> list[Row]:
    """The bar of each number that has one, and whether it is met."""
    found = []
    for row in rows:
        if row[:3] in BARS:
            bound, at_least = BARS[row[:3]]
            met = row.value >= bound if at_least else row.value <= bound
            found.append(Row(row.bench, row.case, f"{row.metric}_bar", bound, row.unit))
            found.append(Row(row.bench, row.case, f"{row.metric}_met", float(met), "yes=1"))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
