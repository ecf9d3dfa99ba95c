"""One snapshot per kind and renderer. What must hold for every report is in the tests beside this file."""

from collections.abc import Callable
from typing import Any

import pytest

from app.kinds.registry import KINDS
from app.reports.html import render_html
from app.reports.markdown import render_markdown
from app.reports.reading import parse
from tests.support.internals_blocks import dense
from tests.support.reports import compare_report
from tests.support.snapshots import body
from tests.support.terminal import printed
from tests.support.trajectory_reports import trajectory_report
from tests.support.variants import VARIANTS

REPORTS: dict[str, Callable[[], dict[str, Any]]] = {
    "calibrate": lambda: VARIANTS["calibrate"]()["refused"],
    "attribute": lambda: VARIANTS["attribute"]()["full"] | {"internals": dense().model_dump(mode="json")},
    "compare": compare_report,
    "mitigate": lambda: VARIANTS["mitigate"]()["helped"],
    "surface": lambda: VARIANTS["surface"]()["both-orders"],
    "sweep": lambda: VARIANTS["sweep"]()["knee"],
    "tasks": lambda: VARIANTS["tasks"]()["harness"],
    "trajectory": lambda: trajectory_report(candidates=2, few=True),
}

# Of these the details are kept as well: they say what no other report has.
DETAILED = {
    "attribute": ("other-depth",),
    "calibrate": ("unfitted",),
    "compare": ("inconclusive", "single"),
    "mitigate": ("nothing",),
    "surface": ("one-step", "nothing-changed-within"),
    "sweep": ("packed", "around", "unordered"),
    "tasks": ("several",),
    "trajectory": ("four",),
}


def test_every_kind_has_a_snapshot() -> None:
    assert REPORTS.keys() == VARIANTS.keys() == DETAILED.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", REPORTS)
def test_a_report_shows_what_it_showed(kind: str, snapshot: Callable[[str, str], None]) -> None:
    report = REPORTS[kind]()
    blocks = KINDS[kind].call("view", parse(report))
    snapshot(f"{kind}.html", body(render_html(blocks)))
    snapshot(f"{kind}.md", render_markdown(blocks))
    for width in (80, 120):
        snapshot(f"{kind}.{width}.txt", printed(report, width))
    snapshot(f"{kind}.details.txt", printed(report, 100, details=True))


@pytest.mark.parametrize("kind", VARIANTS)
def test_each_state_of_a_report_is_told_as_it_was(kind: str, snapshot: Callable[[str, str], None]) -> None:
    """Headings, figures and what is said if something is missing, undecided, broken or not asked for."""
    drawn = VARIANTS[kind]()
    snapshot(f"{kind}.states.txt", "\n\n".join(f"=== {name}\n{printed(one)}" for name, one in drawn.items()))
    for name in DETAILED[kind]:
        snapshot(f"{kind}.{name}.txt", printed(drawn[name], details=True))
