"""Series out of a Prometheus, as a panel gets them."""

from __future__ import annotations

import json
import math
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass

from deploy.grafana.queries import fill

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    name: str
    points: Points
    labels: dict[str, str]


class Source:
    """A Prometheus, and the span that is drawn (Unix seconds)."""

    def __init__(self, url: str, start: float, end: float, variables: dict[str, str]) -> None:
        self.url, self.start, self.end, self.variables = url.rstrip("/"), start, end, variables
        self.step = max(1.0, (end - start) / 400)

    def lines(self, expr: str, legend: str, *, instant: bool = False) -> list[Line]:
        """What a query gives; numbers that are none are left out."""
        span = {"time": self.end} if instant else {"start": self.start, "end": self.end, "step": self.step}
        asked = urllib.parse.urlencode({"query": fill(expr, self.variables)} | span).encode()
        path = "query" if instant else "query_range"
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", asked, timeout=20) as answer:  # noqa: S310 - given
            found = json.load(answer)["data"]["result"]
        made = []
        for one in found:
            labels = {str(name): str(value) for name, value in one["metric"].items()}
            values = one["values"] if "values" in one else [one["value"]]
            points = [(float(at), float(text)) for at, text in values]
            name = re.sub(r"\{\{(\w+)\}\}", lambda part: labels.get(part[1], ""), legend)  # noqa: B023 - used at once
            made.append(Line(name, points if instant else [p for p in points if math.isfinite(p[1])], labels))
        return made
