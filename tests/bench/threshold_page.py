"""The table of coverage in docs/results/threshold.md, from tests/bench/threshold.csv."""

from typing import Final

from tests.bench import threshold
from tests.bench.rows import NONE, by_case, read, table

# Case -> (curve, noise)
CURVES: Final = {
    "8 points, 0.02": ("8 points, 3 beyond the knee", "0.02"),
    "12 points, 0.03, k2 = 0": ("12 points, k2 = 0", "0.03"),
    "15 points, 0.02": ("15 points", "0.02"),
    "15 points, 0.1": ("15 points", "0.1"),
    "20 points, 0.02, no bounds": ("20 points, no bounds", "0.02"),
    "20 points, 0.05": ("20 points", "0.05"),
    "30 points, 0.05, knee on a point": ("30 points, the knee on one of them", "0.05"),
}
NOISES: Final = {
    "even noise": "noise the same everywhere, %",
    "noise growing threefold": "growing threefold along s, %",
    "20 documents": "20 documents, %",
    "20 documents, other texts": "20 other documents, %",
    "60 documents": "60 documents, %",
}


def coverage() -> str:
    """How often the 95 % interval holds the knee."""
    of = by_case(row for row in read(threshold.RESULTS) if row.metric == "coverage_of_95")
    lines = []
    for case, words in CURVES.items():
        found = [of.get(f"{case}, {noise}") for noise in NOISES]
        lines.append([*words, *(f"{100 * one['coverage_of_95']:.4g}" if one else NONE for one in found)])
    return table(["curve", "noise", *NOISES.values()], lines)


PARTS: Final = {"threshold-coverage": coverage}
