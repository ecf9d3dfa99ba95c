"""The table of docs/contributors/serving.md, of the processor on which all parts of tests.bench.serve ran.

Each number that has a bar, with the lowest and highest of its pairs, and whether its median and its worst pair hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.bench.rows import Row, table

RESULTS: Final = Path(__file__).parent / "results/cpu-x86_64-avx512-float32-products-2-threads.csv"
# (case, metric): (bound, whether the number must not be below it)
BARS: Final = {
    ("calibrated_1", "throughput_ratio"): (0.97, True),
    ("calibrated_8", "throughput_ratio"): (0.97, True),
    ("calibrated_32", "throughput_ratio"): (0.97, True),
    ("off_1", "throughput_ratio"): (0.99, True),
    ("off_8", "throughput_ratio"): (0.99, True),
    ("off_32", "throughput_ratio"): (0.99, True),
    ("shadow_1pct", "throughput_ratio"): (0.97, True),
    ("shadow_scored_1pct", "throughput_ratio"): (0.97, True),
    ("gateway_32", "p99_added_ms"): (10.0, False),
}


def page(rows: Iterable[Row]) -> str:
    """The table. KeyError where a number is missing."""
    values = {(row.case, row.metric): row.value for row in rows if row.bench == "serve"}
    lines = []
    for (case, metric), (bound, least) in BARS.items():
        median, low, high = (values[case, metric + end] for end in ("", "_low", "_high"))
        met = median >= bound if least else median <= bound
        worst = low >= bound if least else high <= bound
        places = 3 if least else 1
        lines.append(
            [
                f"`{case},{metric}`",
                f"{'≥' if least else '≤'} {bound:g}",
                f"{median:.{places}f}{'' if met else ', missed'}",
                f"{low:.{places}f} to {high:.{places}f}{'' if worst else ', the worst beyond the bar'}",
            ]
        )
    return table(["row", "bar", "median", "lowest and highest of the pairs"], lines)
