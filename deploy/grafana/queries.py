"""Every query of a dashboard, with its variables filled in as Grafana does it. For tests and the preview."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One query: where it stands, what it asks, whether for one moment, and what its series are called."""

    place: str
    expr: str
    instant: bool
    legend: str = ""


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Puts values in the place of `$name` and `${name}`; longer names first, as `$a` begins `$ab`."""
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(f"${{{name}}}", variables[name]).replace(f"${name}", variables[name])
    return text


def queries(dashboard: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[Asked]:
    """The queries of panels and annotations, and the series that the query variables are taken from."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            place = f"{panel['title']} / {target['refId']}"
            yield Asked(place, fill(target["expr"], variables), bool(target.get("instant")), target["legendFormat"])
    for mark in dashboard["annotations"]["list"]:
        yield Asked(f"annotation {mark['name']}", fill(mark["expr"], variables), False)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            inside = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
            yield Asked(f"variable {variable['name']}", inside.rpartition(",")[0], True)
