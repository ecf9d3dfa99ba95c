"""A job context without a worker: one attempt at a job, in a folder of its own."""

from collections.abc import Callable, Iterable
from pathlib import Path

from app.settings import Settings
from workers.process.handler import JobCancelled


class Context:
    """Records what it hears. `stop_in` stops the attempt in a phase, `stop` whenever it says so."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        stop_in: str = "",
        stop: Callable[["Context"], bool] = lambda _: False,
    ) -> None:
        self.settings = settings
        self.job_id, self.attempt = "diag_test", 1
        self.scratch, self.output = folder / "partial", folder / "attempt-1"
        for path in (self.scratch, self.output):
            path.mkdir(parents=True, exist_ok=True)
        self.phases: list[str] = []
        self.steps: list[tuple[str, int, int]] = []
        self.logs: list[str] = []
        self.samples: list[tuple[str, float, dict[str, str]]] = []
        self._stop_in, self._stop = stop_in, stop

    def kept(self, pattern: str) -> dict[Path, int]:
        """Files that an attempt left for the next one, and when each was written."""
        return {file: file.stat().st_mtime_ns for file in self.scratch.glob(pattern)}

    def told(self, phase: str) -> list[tuple[int, int]]:
        """(done, total) of a phase, in order."""
        return [(done, total) for name, done, total in self.steps if name == phase]

    def progress(self, phase: str, done: int, total: int) -> None:
        """Kept, and checked for sense."""
        assert done <= total or total == 0
        self.steps.append((phase, done, total))
        if not self.phases or self.phases[-1] != phase:
            self.phases.append(phase)

    def log(self, message: str) -> None:
        """Kept."""
        self.logs.append(message)

    def check_cancelled(self) -> None:
        """Stops if it should."""
        if (self._stop_in and self.phases and self.phases[-1] == self._stop_in) or self._stop(self):
            raise JobCancelled

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Kept."""
        self.samples.append((name, value, labels))

    def observe_many(self, name: str, values: Iterable[float], **labels: str) -> None:
        """Kept."""
        self.samples += [(name, value, labels) for value in values]
