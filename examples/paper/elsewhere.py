"""What measurements on other processors ruled, kept beside the page.

Kernels of another processor, or of another number of threads, add in another order and round otherwise. A claim whose
interval ends near a limit may then be ruled otherwise, and a reader has to know which these are: also those that were
measured by another version of the steps, as nobody measures every processor anew with each of them.
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

HEADER: Final = ("device", "claim", "rule", "versions", "outcome")
BETWEEN: Final = "; "


@dataclass(frozen=True)
class Ruling:
    """What one measurement on `device` ruled of a claim, by the rule of this fingerprint, on models that these versions
    of the steps made."""

    device: str
    claim: str
    rule: str
    versions: str
    outcome: str

    def mark(self, now: Ruling) -> str:
        """What tells it from what is ruled now: those of its versions, older or newer, that are others; empty where all
        are the same."""
        if self.versions == now.versions:
            return ""
        others = [one for one in self.versions.split(BETWEEN) if one not in now.versions.split(BETWEEN)]
        return f"other version: {', '.join(others)}" if others else "other version"


def fingerprint(ruling: str, changes: int, jobs: Mapping[str, object]) -> str:
    """Of a rule as code, how often it was changed, and its jobs. Outcomes of different fingerprints are not compared.
    The rule's words have no part in it."""
    return hashlib.sha256(json.dumps([ruling, changes, jobs], sort_keys=True).encode()).hexdigest()[:12]


def made_by(versions: Mapping[str, int]) -> str:
    """Versions of steps in a line: `prune.wanda 1; surgery 4`."""
    return BETWEEN.join(f"{name} {version}" for name, version in sorted(versions.items()))


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
    writer.writerows((one.device, one.claim, one.rule, one.versions, one.outcome) for one in rulings)
    return out.getvalue()


def otherwise(kept: Sequence[Ruling], now: Ruling) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """The devices on which the same rule gave another outcome of the same jobs, by that outcome and its mark."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in kept:
        if (one.claim, one.rule) == (now.claim, now.rule) and one.device != now.device and one.outcome != now.outcome:
            found.setdefault((one.outcome, one.mark(now)), []).append(one.device)
    return {key: tuple(devices) for key, devices in found.items()}
