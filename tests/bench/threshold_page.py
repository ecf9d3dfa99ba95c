"""The tables of docs/results/threshold.md, from tests/bench/threshold.csv."""

from collections.abc import Mapping
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
PUBLISHED: Final = {
    "LLM_Pruner w/o": "LLM-Pruner, not tuned",
    "LLM_Pruner": "LLM-Pruner",
    "SLEB": "SLEB",
    "slicegpt": "SliceGPT",
    "wanda": "Wanda",
    "RIA": "RIA",
    "w.DSnoT": "Wanda + DSnoT",
    "admm": "ADMM",
    "sparsegpt_owl": "SparseGPT + OWL",
    "ASVD": "ASVD",
}
ANSWER: Final = "answer_"
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


def published() -> str:
    """The published knees and errors beside those of our fit."""
    of = by_case(row for row in read(threshold.RESULTS) if row.bench == "published")
    head = ["curve", "points", "published s0", "its log SSE", "s0 here", "log SSE", "95 % interval", "answer"]
    return table(head, (_fitted(words, of[case]) for case, words in PUBLISHED.items()))


def _fitted(words: str, of: Mapping[str, float]) -> list[str]:
    (answer,) = (metric.removeprefix(ANSWER) for metric in of if metric.startswith(ANSWER))
    knees = (f"{of[metric]:.4f}" for metric in ("published_s0", "published_log_sse", "s0", "log_sse"))
    between = f"{of['s0_low']:.3f} to {of['s0_high']:.3f}"
    return [words, f"{of['points']:.0f}", *knees, between, answer.replace("_", " ")]


PARTS: Final = {"threshold-coverage": coverage, "threshold-published": published}
