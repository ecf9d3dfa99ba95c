"""Resident memory of this process while a job measures its points."""

import resource

import psutil

MIB = 1 << 20


class Resident:
    """`after[n]`: MiB resident when the n-th of `points` was there, each looked at once; 0 is before the first."""

    def __init__(self, points: int) -> None:
        self._points = points
        self.after: dict[int, float] = {}

    def note(self, done: int, total: int) -> None:
        """Takes a job's progress; looks where it stands at a whole number of points."""
        point, part = divmod(done * self._points, total)
        if not part and point not in self.after:
            self.after[point] = psutil.Process().memory_info().rss / MIB


def peak() -> float:
    """MiB that were resident at most since this process began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
