"""What measurements on other processors ruled, kept beside the page.

Kernels of another processor, or of another number of threads, add in another order and round otherwise. A claim whose
interval ends near a limit may then be ruled otherwise, and a reader has to know which these are.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADER: Final = ("device", "claim", "rule", "outcome")


@dataclass(frozen=True)
class Ruling:
    """What one measurement on `device` ruled of a claim, by the rule of this fingerprint."""

    device: str
    claim: str
    rule: str
    outcome: str


def fingerprint(rule: str, jobs: Mapping[str, object]) -> str:
    """Of a rule's words, and of the jobs that it judges with the versions of their steps: what another rule decided, or
    of other jobs, is not compared."""
    return hashlib.sha256(json.dumps([rule, jobs], sort_keys=True).encode()).hexdigest()[:12]


def read(path: Path) -> tuple[Ruling, ...]:
    """What is kept. Raises ValueError for a file that is none of ours."""
    if not path.is_file():
        return ()
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    if tuple(rows.fieldnames or ()) != HEADER:
        raise ValueError(f"{path.name} has not the columns {', '.join(HEADER)}")
    return tuple(Ruling(**row) for row in rows)


def merged(kept: Sequence[Ruling], now: Sequence[Ruling]) -> tuple[Ruling, ...]:
    """With these in the place of earlier ones of the same device and claim, by device and then in the order given."""
    new = {(one.device, one.claim) for one in now}
    both = [*(one for one in kept if (one.device, one.claim) not in new), *now]
    return tuple(sorted(both, key=lambda one: one.device))


def table(rulings: Sequence[Ruling]) -> str:
    """As CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((one.device, one.claim, one.rule, one.outcome) for one in rulings)
    return out.getvalue()


def otherwise(kept: Sequence[Ruling], now: Ruling) -> Mapping[str, tuple[str, ...]]:
    """By other outcome, the devices on which the same rule gave it."""
    found: dict[str, list[str]] = {}
    for one in kept:
        if (one.claim, one.rule) == (now.claim, now.rule) and one.device != now.device and one.outcome != now.outcome:
            found.setdefault(one.outcome, []).append(one.device)
    return {outcome: tuple(devices) for outcome, devices in found.items()}
