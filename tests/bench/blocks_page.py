"""The table of docs/results/calibrators.md: `python -m tests.bench.blocks_page` prints it from blocks.csv."""

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bench.rows import Row, read

RESULTS = Path(__file__).with_name("blocks.csv")
SIDES = ("own", "other", "wikitext")


def table(rows: Iterable[Row]) -> str:
    """A line per case, in the order of the file."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.case, {})[row.metric] = row.value
    lines = [
        "| case | positions | fitted domains, % | other domains, % | WikiText-2, % | worst domain, % |",
        "|---|---|---|---|---|---|",
        *(_line(case, of) for case, of in found.items()),
    ]
    return "\n".join(lines) + "\n"


def _line(case: str, of: dict[str, float]) -> str:
    worst = min(of[f"{side}_removed_least"] for side in SIDES)
    shares = " | ".join(_share(of, f"{side}_removed") for side in SIDES)
    return f"| `{case}` | {of['fitted']:.0f} | {shares} | {100 * worst:.1f} |"


def _share(of: dict[str, float], name: str) -> str:
    mean, low, high = (100 * of[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    sys.stdout.write(table(read(RESULTS)))
