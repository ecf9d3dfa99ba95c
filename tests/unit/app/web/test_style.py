"""Colours are checked from the style sheet itself: legible in both themes, and in order where colour means more."""

import re
from itertools import pairwise

import pytest

from app.web.pages import TEMPLATES

CSS = (TEMPLATES / "report.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
)
THEMES = pytest.mark.parametrize("theme", [LIGHT, LIGHT | DARK], ids=["light", "dark"])
SEVERITIES = ("none", "mild", "moderate", "severe", "collapse")


def luminance(colour):
    """Relative luminance of WCAG 2."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@THEMES
def test_text_is_legible_on_every_ground(theme):
    pairs = [(ink, ground) for ink in ("ink", "ink-2", "data", "brand") for ground in ("paper", "panel")]
    pairs += [("on-collapse" if name == "collapse" else "on-light", f"sev-{name}") for name in SEVERITIES]
    pairs += [("on-heat", f"{letter}{step}") for letter in "kc" for step in range(1, 8)]
    assert [pair for pair in pairs if contrast(theme[pair[0]], theme[pair[1]]) < 4.5] == []


@pytest.mark.parametrize("names", [[f"sev-{name}" for name in SEVERITIES], [f"k{step}" for step in range(1, 8)]])
def test_in_grayscale_worse_is_darker_on_paper(names):
    lights = [luminance(LIGHT[name]) for name in names]
    assert all(after < before * 0.95 for before, after in pairwise(lights))


@pytest.mark.parametrize("names", [["paper", *(f"k{step}" for step in range(1, 8))]])
def test_in_the_dark_hotter_is_lighter(names):
    lights = [luminance((LIGHT | DARK)[name]) for name in names]
    assert all(after > before for before, after in pairwise(lights))


def test_both_themes_set_the_same_colours():
    assert set(DARK) | {"on-collapse"} >= set(LIGHT)


def test_the_dark_theme_is_not_printed():
    assert "@media screen and (prefers-color-scheme: dark)" in CSS
    assert CSS.count("prefers-color-scheme") == 1
