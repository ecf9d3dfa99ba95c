"""Draws the dashboard without Grafana: `python -m deploy.grafana.preview URL OUT.html [--minutes 30]`.

The panels' own queries are asked of a running Prometheus and drawn as the dashboard says: same grid, units, words for
values, thresholds, bands and marks. It is a picture of the data, for pages and reviews; it is not Grafana.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.grafana import board
from deploy.grafana.axes import Points, runs, shown, ticks
from deploy.grafana.queries import fill
from deploy.grafana.source import Line, Source

Json = dict[str, Any]
COLUMN, ROW, GAP = 56, 30, 8
COLOURS: Final = {
    "green": "#56a64b",
    "blue": "#3274d9",
    "yellow": "#e0b400",
    "orange": "#ff780a",
    "red": "#e02f44",
    "text": "#5f6368",
}
PALETTE: Final = ("#3274d9", "#8f3bb8", "#37872d", "#c4162a", "#0a8a9f", "#b5651d")
STYLE: Final = (
    "body{margin:0;background:#f4f5f5;font:13px system-ui,sans-serif;color:#24292e}"
    "h1{font-size:20px;margin:14px 16px}text{font:11px system-ui,sans-serif;fill:#5f6368}"
    ".title{font-size:13px;font-weight:600;fill:#24292e}.big{font-size:26px;font-weight:600}"
)


def colour_of(value: float, steps: Sequence[Json]) -> str:
    """The colour of the last threshold that the value has reached."""
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]]


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An SVG element; `class_` is class, `a_b` is a-b."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f"<{name}{given}>{content}</{name}>"


def stat(panel: Json, source: Source, width: float, height: float) -> str:
    """One number a series, or what no number means."""
    defaults, target = panel["fieldConfig"]["defaults"], panel["targets"][0]
    words = {
        key: found for each in defaults["mappings"] if each["type"] == "value" for key, found in each["options"].items()
    }
    texts: list[tuple[str, str, str]] = []
    for line in source.lines(target["expr"], target["legendFormat"], instant=True):
        value = line.points[-1][1]
        if not math.isfinite(value):
            texts.append((defaults["noValue"], COLOURS["text"], line.name))
        elif (word := words.get(f"{value:g}")) is not None:
            texts.append((word["text"], COLOURS[word["color"]], line.name))
        else:
            text = shown(value, defaults["unit"], defaults.get("decimals"))
            texts.append((text, colour_of(value, defaults["thresholds"]["steps"]), line.name))
    texts = texts or [(defaults["noValue"], COLOURS["text"], "")]
    parts = []
    for number, (text, colour, name) in enumerate(texts):
        y = 34 + (number + 0.62) * (height - 44) / len(texts)
        big = min(26.0, 1.7 * (width - 20) / max(1, len(text)), 0.5 * (height - 44) / len(texts))
        parts.append(
            tag(
                "text",
                html.escape(text),
                x=width / 2,
                y=y,
                text_anchor="middle",
                style=f"font-size:{big:.0f}px;font-weight:600;fill:{colour}",
            )
        )
        parts.append(tag("text", html.escape(name), x=width / 2, y=y + 16, text_anchor="middle"))
    return "".join(parts)


def overrides_of(panel: Json, name: str) -> Json:
    """What the dashboard changes for a series of this name."""
    found: Json = {}
    for override in panel["fieldConfig"]["overrides"]:
        wanted = override["matcher"]["options"]
        by_name = override["matcher"]["id"] == "byName"
        if name == wanted if by_name else re.search(wanted.strip("/"), name):
            found |= {each["id"]: each["value"] for each in override["properties"]}
    return found


class Graph:
    """A panel of lines."""

    def __init__(
        self, panel: Json, source: Source, width: float, height: float, marks: Sequence[tuple[str, Line]]
    ) -> None:
        self.panel, self.source, self.marks, self.width = panel, source, marks, width
        two_axes = any("custom.axisPlacement" in json.dumps(each) for each in panel["fieldConfig"]["overrides"])
        self.left, self.right, self.top, self.bottom = 66.0, width - (84.0 if two_axes else 24.0), 36.0, height - 60.0
        self.lines = [line for each in panel["targets"] for line in source.lines(each["expr"], each["legendFormat"])]
        self.defaults = panel["fieldConfig"]["defaults"]
        self.log = self.defaults["custom"].get("scaleDistribution", {}).get("type") == "log"

    def _range(self, lines: Sequence[Line]) -> tuple[float, float]:
        values = [self._scaled(value) for line in lines for _, value in line.points]
        if not values:
            return 0.0, 1.0
        low, high = min(values), max(values)
        if not self.log and self.defaults.get("min") is not None:
            low = min(low, float(self.defaults["min"]))
        pad = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return low - (0 if low == self.defaults.get("min") else pad), high + pad

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.log else value

    def x(self, at: float) -> float:
        """Place of a moment."""
        return self.left + (at - self.source.start) / (self.source.end - self.source.start) * (self.right - self.left)

    def draw(self) -> str:
        """Axes, thresholds, marks, bands, lines, legend."""
        if not any(line.points for line in self.lines):
            return tag(
                "text",
                self.defaults["noValue"],
                x=(self.left + self.right) / 2,
                y=(self.top + self.bottom) / 2,
                text_anchor="middle",
            )
        style = {line.name: overrides_of(self.panel, line.name) for line in self.lines}
        sides = {False: [], True: []}  # type: dict[bool, list[Line]]
        for line in self.lines:
            sides[style[line.name].get("custom.axisPlacement") == "right"].append(line)
        ranges = {side: self._range(lines) for side, lines in sides.items()}

        def y(value: float, *, right: bool = False) -> float:
            low, high = ranges[right]
            return self.bottom - (self._scaled(value) - low) / (high - low) * (self.bottom - self.top)

        parts = self._axes(ranges, sides, style)
        for step in self.defaults["thresholds"]["steps"][1:]:
            if self.top <= (at := y(step["value"])) <= self.bottom and len(sides[False]):
                parts.append(
                    tag(
                        "line",
                        x1=self.left,
                        x2=self.right,
                        y1=at,
                        y2=at,
                        stroke=COLOURS[step["color"]],
                        stroke_dasharray="5 4",
                    )
                )
        parts += [self._mark(colour, part) for colour, mark in self.marks for part in self._runs(mark.points)]
        points = {line.name: line.points for line in self.lines}
        legend, row = self.left, self.bottom + 32
        for number, line in enumerate(self.lines):
            own = style[line.name]
            right = line in sides[True]
            colour = COLOURS.get(own.get("color", {}).get("fixedColor", ""), PALETTE[number % len(PALETTE)])
            parts += self._band(line.points, points.get(own.get("custom.fillBelowTo", "")), colour, y)
            dash = "6 4" if "custom.lineStyle" in own else "none"
            wide = 34 + 6.2 * len(line.name)
            if legend + wide > self.width and legend > self.left:
                legend, row = self.left, row + 15
            thick = own.get("custom.lineWidth", 2)
            for part in self._runs(line.points):
                path = " ".join(f"{self.x(at):.1f},{y(value, right=right):.1f}" for at, value in part)
                parts.append(
                    tag("polyline", points=path, fill="none", stroke=colour, stroke_width=thick, stroke_dasharray=dash)
                )
            parts.append(
                tag(
                    "line",
                    x1=legend,
                    x2=legend + 14,
                    y1=row,
                    y2=row,
                    stroke=colour,
                    stroke_width=max(thick, 1),
                    stroke_dasharray=dash,
                )
            )
            parts.append(tag("text", html.escape(line.name), x=legend + 18, y=row + 4))
            legend += wide
        return "".join(parts)

    def _axes(
        self, ranges: dict[bool, tuple[float, float]], sides: dict[bool, list[Line]], style: dict[str, Json]
    ) -> list[str]:
        parts = []
        for right, lines in sides.items():
            if not lines:
                continue
            low, high = ranges[right]
            unit = style[lines[0].name].get("unit", self.defaults["unit"]) if right else self.defaults["unit"]
            for value in ticks(low, high):
                if self.log and value != round(value):
                    continue
                at = self.bottom - (value - low) / (high - low) * (self.bottom - self.top)
                if not right:
                    parts.append(tag("line", x1=self.left, x2=self.right, y1=at, y2=at, stroke="#e3e5e8"))
                text = shown(10**value if self.log else value, unit, None)
                place = {"x": self.right + 5} if right else {"x": self.left - 5, "text_anchor": "end"}
                parts.append(tag("text", html.escape(text), y=at + 4, **place))
        for share, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end")):
            if share in (0.25, 0.75) and self.right - self.left < 400:
                continue
            moment = self.source.start + share * (self.source.end - self.source.start)
            clock = time.strftime("%H:%M:%S", time.gmtime(moment))
            parts.append(tag("text", clock, x=self.x(moment), y=self.bottom + 16, text_anchor=anchor))
        return parts

    def _runs(self, points: Points) -> list[Points]:
        return runs(points, self.source.step)

    def _mark(self, colour: str, part: Points) -> str:
        """A line where it began; an alarm (red) tints what it lasted."""
        first, last = (self.x(part[at][0]) for at in (0, -1))
        line = tag("line", x1=first, x2=first, y1=self.top, y2=self.bottom, stroke=COLOURS[colour], stroke_width=1.5)
        if colour != "red":
            return line
        return self._tint(COLOURS[colour], first, last) + line

    def _tint(self, colour: str, first: float, last: float) -> str:
        height = self.bottom - self.top
        return tag("rect", x=first, y=self.top, width=last - first, height=height, fill=colour, fill_opacity=0.08)

    def _band(self, upper: Points, lower: Points | None, colour: str, y: Callable[[float], float]) -> list[str]:
        """What lies between two lines."""
        below = dict(lower or ())
        parts = []
        for part in self._runs([point for point in upper if point[0] in below]):
            edge = [(at, value) for at, value in part] + [(at, below[at]) for at, _ in reversed(part)]
            path = " ".join(f"{self.x(at):.1f},{y(value):.1f}" for at, value in edge)
            parts.append(tag("polygon", points=path, fill=colour, fill_opacity=0.2))
        return parts


def page(url: str, start: float, end: float, deployment: str = ".+") -> str:
    """The whole dashboard as one HTML page."""
    dashboard: Json = json.loads(board.FILE.read_text(encoding="utf-8"))
    window = f"{max(10, int(4 * (end - start) / 400))}s"
    variables = {"deployment": deployment, "__rate_interval": window, "datasource": "prometheus"}
    source = Source(url, start, end, variables)
    marks = [
        (each["iconColor"], line)
        for each in dashboard["annotations"]["list"]
        for line in source.lines(each["expr"], each["titleFormat"])
    ]
    drawn, bottom = [], 0
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        width, height = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
        inside = (
            stat(panel, source, width, height)
            if panel["type"] == "stat"
            else Graph(panel, source, width, height, marks).draw()
        )
        title = html.escape(fill(panel["title"], variables | {"deployment": deployment.replace(".+", "all")}))
        frame = tag("rect", width=width, height=height, rx=3, fill="#fff", stroke="#dcdee1")
        body = frame + tag("text", title, x=12, y=22, class_="title") + inside
        drawn.append(tag("g", body, transform=f"translate({at['x'] * COLUMN + GAP},{at['y'] * ROW})"))
        bottom = max(bottom, (at["y"] + at["h"]) * ROW)
    picture = tag("svg", "".join(drawn), xmlns="http://www.w3.org/2000/svg", width=24 * COLUMN + GAP, height=bottom)
    heading = tag("h1", html.escape(dashboard["title"]))
    return (
        '<!doctype html><meta charset="utf-8"><title>Damage of served traffic</title>'
        f"<style>{STYLE}</style>{heading}{picture}\n"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.preview", description=__doc__)
    parser.add_argument("url", help="a Prometheus")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--deployment", default=".+", help="a name, or a regular expression")
    given = parser.parse_args()
    end = time.time()
    given.out.write_text(page(given.url, end - 60 * given.minutes, end, given.deployment), encoding="utf-8")


if __name__ == "__main__":
    main()
