"""What a metric of a worker is: how it is declared, by the worker and by each kind of job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PREFIX = "hemostat_"
# Labels of a comparison: aliases, and the beginning of the recipe's fingerprint.
COMPARISON = ("reference", "model", "recipe")
PHASE_BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)


@dataclass(frozen=True)
class Metric:
    """What one metric is. `name` is the name without prefix, and for counters without `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] | None = None  # label -> the fixed set of its values
    buckets: tuple[float, ...] = ()
    # A gauge that is 0 once the child process has ended, whatever it sent last.
    of_child: bool = False

    @property
    def exported(self) -> str:
        """Name of the family as a scrape shows it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"

    @property
    def per_comparison(self) -> bool:
        """Whether its series belong to a comparison and are bounded with it."""
        return self.labels[: len(COMPARISON)] == COMPARISON
