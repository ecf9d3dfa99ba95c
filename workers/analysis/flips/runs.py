"""The runs that were seen: one line a task of a finished job, in a file below the service's home.

Lines are only ever added, each in one write, so two workers may add at once. A job that was run twice is in it twice
and is read once. A line that cannot be read (another version's, or cut off by a full disk) is passed over.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

# What JSON may hold for a field: a whole number is a fine KL.
_KINDS: Final[dict[str, tuple[type, ...]]] = {"str": (str,), "int": (int,), "float": (int, float)}
FILE: Final = Path("flips") / "runs.jsonl"


def teaches(steps: Iterable[str]) -> bool:
    """Whether the KL of a candidate made by steps of these types shows of its flips as that of others does.

    A temperature moves every probability and no first choice: beside its KL an answer that stays is no surprise.
    """
    return not any(step.startswith("decode.") for step in steps)


@dataclass(frozen=True)
class Run:
    """One task, answered by two models.

    `task` is its name, `fingerprint` that of its items. `source` is the fingerprint of all items that they were drawn
    from, "" if they are all. Of `items` items `flips` flipped. `kl` is the mean KL of the candidate over the job's
    text, in nats per token. `reference` and `candidate` are fingerprints of weights.
    """

    job: str
    task: str
    fingerprint: str
    items: int
    flips: int
    kl: float
    reference: str = ""
    candidate: str = ""
    text: str = ""
    finished_at: float = 0.0
    source: str = ""

    @property
    def identity(self) -> str:
        """The task, the same for every draw of its items."""
        return self.source or self.fingerprint

    @property
    def rate(self) -> float:
        """Share of items that flipped."""
        return self.flips / self.items

    @property
    def usable(self) -> bool:
        """Whether it says something of how flips rise with KL: a model against itself does not."""
        return self.items > 0 and 0 <= self.flips <= self.items and self.kl > 0 and math.isfinite(self.kl)


def read(home: Path) -> list[Run]:
    """Every usable run, each job's task once; none where there is no file."""
    try:
        lines = (home / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found: dict[tuple[str, str], Run] = {}
    for line in lines:
        run = _run(line)
        if run is not None and run.usable:
            found[run.job, run.fingerprint] = run
    return list(_distinct(found.values()))


def _distinct(runs: Iterable[Run]) -> Iterable[Run]:
    """The same models over the same text and task give the same answers. Two records of them are one observation, and
    so are draws of the task's items, which share them. Kept is the run of the most items, and of several such the
    last."""
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        same = (run.reference, run.candidate, run.text, run.identity) if run.candidate else (run.job, run.fingerprint)
        if same not in kept or run.items >= kept[same].items:
            kept[same] = run
    return kept.values()


def _run(line: str) -> Run | None:
    try:
        told = json.loads(line)
        values = {field.name: told[field.name] for field in fields(Run) if field.name in told}
        run = Run(**values)
        sound = all(type(getattr(run, field.name)) in _KINDS[str(field.type)] for field in fields(Run))
    except (ValueError, TypeError, KeyError):
        return None
    return run if sound else None


def add(home: Path, runs: Iterable[Run]) -> None:
    """Adds runs to the file, whole lines in one write."""
    lines = "".join(json.dumps(asdict(run)) + "\n" for run in runs)
    if not lines:
        return
    file = home / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        # A line that a full disk cut off must not swallow the next one.
        whole = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        os.write(descriptor, (lines if whole else "\n" + lines).encode())
    finally:
        os.close(descriptor)
