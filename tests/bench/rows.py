"""Rows of a bench's CSV: `bench,case,metric,value,unit`."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

NONE: Final = "–"


class Row(NamedTuple):
    """One measured number."""

    bench: str
    case: str
    metric: str
    value: float
    unit: str


def emit(rows: Iterable[Row]) -> None:
    """From a measuring process to the one that gathers: one JSON list on the last line of standard output."""
    sys.stdout.write("\n" + json.dumps([list(row) for row in rows]) + "\n")


def parse(output: str) -> list[Row]:
    """What `emit` wrote."""
    return [Row(*row) for row in json.loads(output.strip().splitlines()[-1])]


def read(file: Path) -> list[Row]:
    """What `write` left."""
    with file.open(newline="") as stream:
        return [
            Row(row["bench"], row["case"], row["metric"], float(row["value"]), row["unit"])
            for row in csv.DictReader(stream)
        ]


def by_case(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Case -> metric -> value, in the order of the rows."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.case, {})[row.metric] = row.value
    return found


def span(shares: Iterable[float], digits: int = 0) -> str:
    """The least and the largest share, in percent."""
    found = sorted(100 * share for share in shares)
    return f"{found[0]:.{digits}f} to {found[-1]:.{digits}f} %"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, without an end of line after the last row."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def replaced(earlier: Iterable[Row], fresh: Sequence[Row]) -> list[Row]:
    """The earlier rows without those of the cases that were measured again, then the fresh ones."""
    again = {(row.bench, row.case) for row in fresh}
    return [row for row in earlier if (row.bench, row.case) not in again] + list(fresh)


def merged(earlier: Iterable[Row], fresh: Sequence[Row]) -> list[Row]:
    """The earlier rows with fresh numbers where they stand, then what is new: a part may measure some of a case."""
    numbers = {row[:3]: row for row in fresh}
    return [numbers.pop(row[:3], row) for row in earlier] + list(numbers.values())


def write(file: Path, rows: Iterable[Row]) -> None:
    """The CSV: whole or not at all."""
    partial = file.with_name(f".{file.name}")
    with partial.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Row._fields)
        for row in rows:
            writer.writerow([row.bench, row.case, row.metric, f"{row.value:.6g}", row.unit])
    partial.replace(file)
