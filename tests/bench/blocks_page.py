"""The table of docs/results/calibrators.md, from blocks.csv."""

from collections.abc import Iterable
from pathlib import Path

from tests.bench.rows import Row, by_case, table

RESULTS = Path(__file__).with_name("blocks.csv")
SIDES = ("own", "other", "wikitext")


def page(rows: Iterable[Row]) -> str:
    """The table: a line per case, in the order of the file."""
    head = ["case", "positions", "fitted domains, %", "other domains, %", "WikiText-2, %", "worst domain, %"]
    return table(head, (_line(case, of) for case, of in by_case(rows).items()))


def _line(case: str, of: dict[str, float]) -> list[str]:
    worst = min(of[f"{side}_removed_least"] for side in SIDES)
    shares = (_share(of, f"{side}_removed") for side in SIDES)
    return [f"`{case}`", f"{of['fitted']:.0f}", *shares, f"{100 * worst:.1f}"]


def _share(of: dict[str, float], name: str) -> str:
    mean, low, high = (100 * of[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
