"""The distances between two next-token distributions that are measured: p of the reference, q of the candidate.

A line here and a term of the same name in `workers.distributions.terms` make a distance: columns by token, blocks of
reports, differences, tables and metrics follow from the list.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Distance:
    """One distance. It is at least 0 and at most `most`, in its `unit`, at every position."""

    name: str
    symbol: str
    says: str
    unit: Literal["nats", "probability"] = "nats"
    most: float = math.inf

    @property
    def bounds(self) -> tuple[float, float]:
        """The values that it can take."""
        return 0.0, self.most


DISTANCES: Final = [
    Distance("kl", "KL(p‖q)", "what the candidate lost"),
    Distance("reverse_kl", "KL(q‖p)", "what it made up"),
    Distance("js", "JS", "Jensen–Shannon, at most 0.693", most=math.log(2)),
    Distance("tv", "TV", "total variation", "probability", 1.0),
]
