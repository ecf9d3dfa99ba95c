import io

import pytest
from rich.console import Console

from app.kinds.calibrate.report import CalibrateReport
from app.web.report import render
from app.web.sections.calibration import flattening, left, saved_scale
from app.web.terminal import render_terminal
from tests.support.calibration_reports import calibrate_report, calibration_variants
from tests.support.html import tree

VARIANTS = calibration_variants()


def page(name):
    return tree(render(VARIANTS[name]))


def text(element):
    return " ".join(element.text.split())


def rows(table):
    """Cells of the body, by the text of the row's heading."""
    return {text(row.one("th").one("bdi")): row for row in table.one("tbody").all("tr")}


def tables(name, section):
    return list(page(name).one(id_=section).all("table"))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_drawn_and_the_same_twice(name):
    html = render(VARIANTS[name])
    assert html == render(VARIANTS[name])
    assert "<script" not in html
    drawn = tree(html)
    for chart in drawn.all("svg"):
        assert chart.children[0].tag == "title"
    for table in drawn.all("table"):
        assert text(table.one("caption"))
        width = len(list(table.one("thead").all("th")))
        for row in table.one("tbody").all("tr"):
            assert sum(cell.tag in ("th", "td") for cell in row.all()) == width


def test_a_proven_profile_says_so_and_names_it():
    assert text(page("proven").one("title")).startswith("Proven:")
    served = page("proven").one(id_="served")
    assert "cal-3f9c2a7be1d04c58 may be served on smollm2-rtn4" in text(served)
    assert "Why not" not in text(served)


def test_a_refused_one_says_why_before_any_number():
    served = text(page("refused").one(id_="served"))
    assert "Identity is served on smollm2-rtn4" in served
    assert served.index("Why not") < served.index("KL removed")
    assert "On domain german KL changes by +0.018 nats" in served


def test_every_calibrator_has_its_row_its_share_and_a_strip():
    found = rows(tables("proven", "calibrators")[0])
    assert len(found) == 7
    assert next(iter(found)) == "low-rank map, then token bias, then confidence temperature"
    chosen = [name for name, row in found.items() if "chosen" in text(row.one("th"))]
    assert chosen == ["low-rank map, then confidence temperature"]
    assert all(list(row.all("line", class_="base")) for row in found.values()), "zero is marked"


def test_domains_show_both_kl_and_whether_they_were_fitted():
    shown, matrix = tables("unfitted", "domains")
    found = rows(shown)
    assert set(found) == {"prose", "dialogue", "code", "mathematics", "json", "german"}
    assert "not fitted" in text(found["german"])
    assert "not fitted" not in text(found["prose"])
    assert list(found["prose"].all("circle", class_="ring"))
    assert "Other domains" in text(tables("unfitted", "calibrators")[0])
    assert len(rows(matrix)) == 6
    assert len(list(matrix.one("thead").all("th"))) == 8


def test_a_domain_that_is_worse_is_drawn_as_a_loss():
    found = rows(tables("refused", "domains")[0])
    assert list(found["german"].all("line", class_="loss"))
    assert list(found["prose"].all("line", class_="gain"))


def test_flattening_is_visible_as_such():
    report = CalibrateReport.model_validate(VARIANTS["flattening"])
    said = flattening(report)
    assert "flatter by 0.0800 nats of entropy, towards the reference" in said
    assert "One temperature alone saves 97 %" in said
    assert said in text(page("flattening").one(id_="effects")).replace("’", "'")


def test_effects_after_sampling_are_shown_with_their_settings():
    effects = text(page("proven").one(id_="effects"))
    assert "After temperature 0.7 and top-p 0.9, over 2,048 test tokens" in effects
    assert "Same first choice as the reference, %" in effects


def test_an_axis_of_savings_always_holds_zero():
    report = CalibrateReport.model_validate(calibrate_report())
    cells = [row.own for row in report.test.table]
    scale = saved_scale(cells)
    assert scale.holds(0.0)
    assert all(scale.holds(limit) for cell in cells for limit in cell.saved.ci or ())
    assert saved_scale([]).holds(0.0)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_says_the_same_within_its_width(name, width):
    console = Console(width=width, record=True, file=io.StringIO())
    render_terminal(VARIANTS[name], console)
    said = console.export_text()
    assert max(len(line) for line in said.splitlines()) <= width
    assert ("NOT SERVED" in said) == (name == "refused")
    assert "Saved on the fitted domains of the test" in said
    assert "By domain, chosen calibrator" in said


def test_a_domain_whose_intervals_are_over_windows_is_marked_in_the_terminal_too():
    report = calibrate_report()
    assert "intervals over windows" not in render(report)
    chosen = next(row for row in report["test"]["table"] if row["chosen"])
    cell = chosen["domains"]["prose"]
    cell |= {"documents": 1, "saved": cell["saved"] | {"clusters": "windows"}}
    out = io.StringIO()
    render_terminal(report, Console(file=out, width=80))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert "* intervals over windows: prose 1 document" in lines
    assert any(line.startswith("prose * ") for line in lines)
    assert "intervals over windows" in render(report)


def test_a_class_that_is_not_decided_is_not_told_as_one():
    report = CalibrateReport.model_validate(calibration_variants()["refused"])
    assert not report.decision.conclusive
    assert "over all test documents (moderate or severe); raw it was" in left(report)
