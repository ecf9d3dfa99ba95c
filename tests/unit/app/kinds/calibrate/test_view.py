"""What a calibrate report decides and counts: is it served, and why not."""

from app.kinds.calibrate.calibrators import named
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.view import blocks, heading, outcome
from app.reports.blocks import Items, Note, Table, brief
from tests.support.calibration_reports import calibrate_report, calibration_variants
from tests.support.terminal import printed

VARIANTS = calibration_variants()


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
    assert "On domain german the correction changes KL by +0.018 nats" in reasons[0].items[0]


def test_domains_whose_intervals_are_over_windows_are_named():
    data = calibrate_report()
    assert "ntervals over windows" not in printed(data, 80, details=True)
    chosen = next(row for row in data["test"]["table"] if row["chosen"])
    cell = chosen["domains"]["prose"]
    cell |= {"documents": 1, "saved": cell["saved"] | {"clusters": "windows"}}
    shown = " ".join(printed(data, 80, details=True).split())
    assert "Intervals over windows, of too few documents: prose." in shown


def test_a_domain_that_is_worse_is_drawn_as_a_loss():
    (table,) = tables("refused")["domains"]
    drawn = {row[0].text: row[3].chart for row in table.rows}
    assert ' loss"' in drawn["german"]
    assert ' gain"' in drawn["prose"]
