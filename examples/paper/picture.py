"""A chart of the report pages as a picture of its own: one file for light and one for dark surroundings.

On a page the style sheet gives a chart its colours and the page its width. A picture carries both: the rules of
report.css for the classes that it uses, and a fixed width.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

import app.web
from examples.paper.finding import Chart

Theme = Literal["light", "dark"]
THEMES: Final[tuple[Theme, ...]] = ("light", "dark")
WIDTH: Final = 760
_MARGIN: Final = 18
_CSS: Final = (Path(app.web.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
_FONT: Final = (
    'font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif;'
)
_OUTER: Final = re.compile(r'<svg class="chart" role="img" width="100%" height="(?P<height>[\d.]+)">')
_RULE: Final = re.compile(r"(?P<selectors>[^{}@/]+)\{(?P<body>[^{}]*)\}")
_CLASSES: Final = re.compile(r'class="(?P<names>[^"]*)"')
_SELECTOR: Final = re.compile(r"(\.[\w-]+)+")


def file_name(chart: Chart, theme: Theme) -> str:
    """Of the picture in this theme."""
    return f"{chart.name}-{theme}.svg"


def picture(chart: Chart, theme: Theme) -> str:
    """The file's text. Raises ValueError for markup that is no chart of the report pages."""
    markup = str(chart.markup)
    found = _OUTER.match(markup)
    if found is None:
        raise ValueError(f"{chart.name} is no chart of the report pages")
    height = float(found["height"])
    inner = f'<svg x="{_MARGIN}" y="{_MARGIN}" width="{WIDTH}" height="{height:g}">{markup[found.end() :]}'
    wide, high = WIDTH + 2 * _MARGIN, height + 2 * _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{wide}" height="{high:g}" '
        f'viewBox="0 0 {wide} {high:g}">\n<style>\n{_style(markup, theme)}\n</style>\n'
        f'<rect width="{wide}" height="{high:g}" rx="6" style="fill: var(--paper)"/>\n{inner}\n</svg>\n'
    )


def _style(markup: str, theme: Theme) -> str:
    used = {name for names in _CLASSES.findall(markup) for name in names.split()}
    rules = [
        f"{selector} {{ {found['body'].strip()} }}"
        for found in _RULE.finditer(_CSS)
        for selector in (one.strip() for one in found["selectors"].split(","))
        if _SELECTOR.fullmatch(selector) and set(selector.split(".")[1:]) <= used
    ]
    colours = "; ".join(f"{name}: {value}" for name, value in palette(theme).items())
    return "\n".join([f"svg {{ {_FONT} {colours} }}", *dict.fromkeys(rules)])


def palette(theme: Theme) -> dict[str, str]:
    """The page's colours by variable. The style sheet has the light ones first, then what the dark theme changes."""
    light, dark = (
        {name: value.strip() for name, value in re.findall(r"(--[\w-]+):\s*([^;]+);", found["body"])}
        for found in list(_RULE.finditer(_CSS))
        if found["selectors"].strip() == ":root"
    )
    return light if theme == "light" else light | dark
