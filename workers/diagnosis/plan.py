"""What one attempt scores, and whether what an earlier attempt left belongs to the same thing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.distributions.token_values import TokenValues

# Positions that are handed to the divergence at once; also the grain of resuming (a few seconds of work).
POSITIONS_AT_ONCE = 4096


def plan_fingerprint(parts: Sequence[str]) -> str:
    """One hash for everything that decides what a scored position's values are."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def batches(lengths: Sequence[int], *, start: int = 0, positions: int = POSITIONS_AT_ONCE) -> Iterator[tuple[int, int]]:
    """Half-open ranges of windows from `start` on, each of about `positions` tokens and of at least one window."""
    first, filled = start, 0
    for index in range(start, len(lengths)):
        if filled and filled + lengths[index] > positions:
            yield first, index
            first, filled = index, 0
        filled += lengths[index]
    if first < len(lengths):
        yield first, len(lengths)


def spread(lengths: Sequence[int], *, tokens: int) -> list[int]:
    """Indices of evenly spaced windows of about `tokens` tokens together, at least one, in order."""
    total = sum(lengths)
    if total <= tokens:
        return list(range(len(lengths)))
    count = max(1, min(len(lengths), round(len(lengths) * tokens / total)))
    return sorted({round((i + 0.5) * len(lengths) / count - 0.5) for i in range(count)})


@dataclass(frozen=True)
class Scratch:
    """Values of the windows scored so far, on disk, so that the attempt after a lost one goes on from there.

    A folder of files named by their range of windows. It belongs to one plan; files of another plan are removed.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, plan: str) -> Scratch:
        """The scratch of this plan; leftovers of another one go."""
        marker = folder / "plan"
        if not marker.is_file() or marker.read_text() != plan:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            partial = folder / ".plan"
            partial.write_text(plan)
            partial.replace(marker)
        return cls(folder)

    def parts(self) -> list[tuple[int, int, TokenValues]]:
        """The longest unbroken run of ranges from window 0 on; a damaged file ends it."""
        found: list[tuple[int, int, TokenValues]] = []
        expected = 0
        for file in sorted(self.folder.glob("values-*.npz")):
            first, last = (int(part) for part in file.stem.removeprefix("values-").split("-"))
            if first != expected:
                continue
            try:
                found.append((first, last, TokenValues.load(file)))
            except ValueError:
                file.unlink()
                break
            expected = last
        return found

    def add(self, first: int, last: int, values: TokenValues) -> None:
        """Keeps the values of windows [first, last)."""
        values.save(self.folder / f"values-{first:08d}-{last:08d}.npz")
