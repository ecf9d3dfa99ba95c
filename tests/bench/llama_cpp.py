"""How a compare job stands to llama.cpp's KLD tool on the same kind of processor.

`llama_cpp.csv` has one line a run of `llama-perplexity -c 512 -t 2 --chunks 20`, built from the source that
llama-cpp-python brings, with nothing else on the machine: first `--kl-divergence-base FILE` with the reference, then
`--kl-divergence` with the candidate, both timed from start to end as a person who runs the tool waits. The model is the
demo model's GGUF, turned by `llama-quantize` into the format that the line names. The tool scores the second half of
each window: 255 tokens of 512. Ours scores every token but the first. Both are counted as scored tokens per second, end
to end.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from tests.bench.rows import Row

FILE: Final = Path(__file__).with_suffix(".csv")
SCORED_OF_WINDOW: Final = 255
# Multiples of the tool's rate that a compare job is to reach: both passes, and the candidate's alone.
BOTH_PASSES: Final = 3.0
STORED_REFERENCE: Final = 2.6
_CASES: Final = {
    "cold": BOTH_PASSES,
    "cold_long": BOTH_PASSES,
    "stored_reference": STORED_REFERENCE,
    "stored_reference_long": STORED_REFERENCE,
}


class Rate(NamedTuple):
    """Scored tokens per second of the tool, end to end: with both passes, and where its base file is ready."""

    both: float
    stored: float


def rates(kind: str, file: Path = FILE) -> dict[str, Rate]:
    """By weights (`bf16`, `f32`, `bf16-q4_1` of reference and candidate), the medians of the runs on this kind of
    processor; empty where the tool was not run on one."""
    seconds: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    with file.open(newline="") as stream:
        for line in csv.DictReader(stream):
            if line["processor"] == kind:
                run = int(line["windows"]), float(line["base_seconds"]), float(line["kld_seconds"])
                seconds[line["weights"]].append(run)
    return {
        weights: Rate(
            both=median(SCORED_OF_WINDOW * windows / (base + kld) for windows, base, kld in runs),
            stored=median(SCORED_OF_WINDOW * windows / kld for windows, _, kld in runs),
        )
        for weights, runs in seconds.items()
    }


def multiples(rows: list[Row], kind: str, file: Path = FILE) -> list[Row]:
    """Each compare job's rate over the tool's, with the bar of the kind of job and whether it is met."""
    found = []
    for row in rows:
        if (row.bench, row.metric) != ("compare", "job_tokens_per_second") or row.case not in _CASES:
            continue
        bar = _CASES[row.case]
        for weights, rate in rates(kind, file).items():
            ratio = row.value / (rate.both if bar == BOTH_PASSES else rate.stored)
            name = f"over_llama_cpp_{weights}"
            found += [
                Row("compare", row.case, name, ratio, "ratio"),
                Row("compare", row.case, f"{name}_bar", bar, "ratio"),
                Row("compare", row.case, f"{name}_met", float(ratio >= bar), "yes=1"),
            ]
    return found
