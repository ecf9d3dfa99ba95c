"""What one attempt scores, and whether what an earlier attempt left belongs to the same thing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.distributions.token_values import TokenValues

_FILE = "values-*.npz"


def plan_fingerprint(parts: Sequence[str]) -> str:
    """One hash for everything that decides what a scored position's values are."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def spread(lengths: Sequence[int], *, tokens: int) -> list[int]:
    """Indices of evenly spaced windows of about `tokens` tokens together, at least one, in order."""
    total = sum(lengths)
    if total <= tokens:
        return list(range(len(lengths)))
    count = max(1, round(len(lengths) * tokens / total))
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
        """The longest unbroken run of ranges [first, last) from window 0 on; a damaged file ends it and is removed."""
        found: list[tuple[int, int, TokenValues]] = []
        expected = 0
        for file in sorted(self.folder.glob(_FILE)):
            first, last = (int(part) for part in file.stem.removeprefix("values-").split("-"))
            if first != expected:
                break
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
