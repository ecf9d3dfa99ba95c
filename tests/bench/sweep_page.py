"""The tables of docs/results/sweep.md, from tests/bench/results and adaptive.csv."""

from collections.abc import Mapping
from typing import Final

from tests.bench import adaptive
from tests.bench.rows import NONE, by_case, read, table
from tests.bench.speed_page import machines

SETTINGS: Final = 12
# Words -> the seconds that count as passes of the reference.
PARTS_OF_JOB: Final = {
    "with the reference's pass": ("measuring_seconds", "reference_seconds"),
    "whole job, without making": ("job_seconds",),
}
WORKERS: Final = {
    "job_ratio": "whole job, one worker with one core",
    "points_ratio": "points alone, one worker with one core",
    "job_ratio_all_cores": "whole job, one worker with both cores",
    "points_ratio_all_cores": "points alone, one worker with both cores",
}
CHOSEN: Final = {
    "mean_width": "mean width of the interval",
    "median_width": "median width of the interval",
    "mean_error": "mean error of the knee",
    "median_error": "median error of the knee",
    "coverage_of_95": "share of intervals that hold the true knee",
}


def passes() -> str:
    """What a sweep of twelve values takes, in passes of the twelve settings."""
    found = {name: of["12_points"] for name, of in machines("sweep").items()}
    lines = [["points, without making them", *(_barred(of) for of in found.values())]]
    for words, names in PARTS_OF_JOB.items():
        lines.append([words, *(f"{_passes(of, names):.3f}" for of in found.values())])
    lines.append(["seconds per pass", *(f"{of['forward_seconds']:.1f}" for of in found.values())])
    lines.append(["seconds to make the settings", *(f"{of['making_seconds']:.1f}" for of in found.values())])
    return table(["forward passes per value", *found], lines)


def _passes(of: Mapping[str, float], names: tuple[str, ...]) -> float:
    made = of["making_seconds"] if "job_seconds" in names else 0.0
    return (sum(of[name] for name in names) - made) / (SETTINGS * of["forward_seconds"])


def _barred(of: Mapping[str, float]) -> str:
    return f"{of['forward_ratio']:.3f}{'' if of['forward_ratio_met'] else ', **missed**'}"


def workers() -> str:
    """Time of two workers with a core each over that of one worker."""
    found = {name: of["two_workers"] for name, of in machines("sweep").items() if "two_workers" in of}
    lines = [
        [words, *(f"{of[name]:.2f}" if name in of else NONE for of in found.values())]
        for name, words in WORKERS.items()
    ]
    return table(["two workers against", *found], lines)


def chosen() -> str:
    """Selected values beside evenly spaced ones."""
    of = by_case(read(adaptive.RESULTS))
    lines = [[words, *(f"{of[case][name]:.3f}" for case in ("adaptive", "even"))] for name, words in CHOSEN.items()]
    return table(["of s", "selected", "evenly spaced"], lines)


PARTS: Final = {"sweep-passes": passes, "sweep-workers": workers, "sweep-chosen": chosen}
