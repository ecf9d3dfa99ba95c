"""What a calibrate report decides and counts: is it served, and why not."""

from app.kinds.calibrate.calibrators import named
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.view import blocks, heading, left, outcome
from app.reports.blocks import Items, Note, Table, brief
from tests.support.calibration_reports import calibrate_report, calibration_variants
from tests.support.terminal import printed

VARIANTS = calibration_variants()
MOST_LINES = 38  # of 40: the command adds the path of the page and the outcome of a rule


def report(name):
    return CalibrateReport.model_validate(VARIANTS[name])


def tables(name):
    sections = [block for block in blocks(report(name)) if hasattr(block, "blocks")]
    return {section.id: [one for one in section.blocks if isinstance(one, Table)] for section in sections}


def test_what_is_proven_may_be_served_and_what_is_not_says_why():
    for name, served in (("proven", True), ("refused", False)):
        found = report(name)
        shown = list(brief(blocks(found)))
        mark = next(one for one in shown if isinstance(one, Note))
        assert heading(found) == ("Proven" if served else "Not served")
        assert mark.kind == ("good" if served else "bad")
        assert mark.text == outcome(found)
        reasons = [one for one in shown if isinstance(one, Items) and one.heading == "Why not"]
        assert bool(reasons) is not served
        assert ("Identity is served on smollm2-rtn4" in mark.text) is not served
        assert found.profile in mark.text and named(found.calibrator) in mark.text
    assert "On domain german KL changes by +0.018 nats" in reasons[0].items[0]


def test_every_calibrator_has_its_row_those_that_save_most_first():
    (table,) = tables("proven")["calibrators"]
    rows = sorted(report("proven").test.table, key=lambda row: -row.own.saved.mean)
    assert [row[0].text for row in table.rows] == [named(row.calibrator) for row in rows]
    assert [row[0].text for row in table.rows if row[0].note == "chosen"] == [named(report("proven").calibrator)]
    assert all('class="base"' in row[2].chart for row in table.rows), "zero is marked"


def test_domains_show_both_kl_and_which_were_not_fitted():
    (table,) = tables("unfitted")["domains"]
    assert {row[0].text for row in table.rows} == {"prose", "dialogue", "code", "mathematics", "json", "german"}
    shown = printed(VARIANTS["unfitted"], 80, details=True)
    assert "Not fitted: code and german." in " ".join(shown.split())
    assert "Not fitted" not in printed(VARIANTS["proven"], 80, details=True)
    assert "Other domains, % of raw KL" in [column.label for column in tables("unfitted")["calibrators"][0].columns]


def test_domains_whose_intervals_are_over_windows_are_named():
    data = calibrate_report()
    assert "ntervals over windows" not in printed(data, 80, details=True)
    chosen = next(row for row in data["test"]["table"] if row["chosen"])
    cell = chosen["domains"]["prose"]
    cell |= {"documents": 1, "saved": cell["saved"] | {"clusters": "windows"}}
    shown = " ".join(printed(data, 80, details=True).split())
    assert "Intervals over windows, of too few documents: prose." in shown


def test_a_class_that_is_not_decided_is_not_called_one():
    found = report("refused")
    assert not found.decision.conclusive
    assert "over all test documents (moderate or severe); raw it was" in left(found)
    assert outcome(found).endswith("calibrated, it is moderate or severe.")


def test_the_short_output_fits_its_lines_and_the_terminal():
    for body in VARIANTS.values():
        for width in (80, 120):
            lines = printed(body, width).splitlines()
            assert len(lines) <= MOST_LINES
            assert max(map(len, lines)) <= width


def test_a_domain_that_is_worse_is_drawn_as_a_loss():
    (table,) = tables("refused")["domains"]
    drawn = {row[0].text: row[3].chart for row in table.rows}
    assert ' loss"' in drawn["german"]
    assert ' gain"' in drawn["prose"]
