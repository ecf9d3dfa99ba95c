"""A claim is decided by its rule, and what cannot be decided says why."""

import pytest

from examples.paper.claim import claims
from examples.paper.judge import judge
from examples.paper.measure import Measured
from tests.support.paper_reports import compared, swept

CLAIM = next(claim for claim in claims() if claim.id == "four-bits")


def measured(report):
    return {"gptq-bits": Measured("gptq-bits", report, 1.0)}


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [((1.02, 1.01, 1.03), "confirmed"), ((1.2, 1.1, 1.3), "refuted"), ((1.05, 1.0, 1.1), "not identifiable")],
)
def test_the_rule_decides(ratio, outcome):
    assert judge(CLAIM, measured(swept({4: ratio}))).outcome == outcome


def test_a_job_without_a_report_leaves_the_claim_unmeasured():
    finding = judge(CLAIM, {"gptq-bits": Measured("gptq-bits", why="the job ended with disk_full: no room")})
    assert (finding.outcome, finding.sentence) == ("not measured", "gptq-bits: the job ended with disk_full: no room.")
    assert finding.figures == finding.charts == ()


def test_a_number_without_an_interval_identifies_nothing():
    report = swept({4: (1.0, 1.0, 1.0)})
    point = report.points[0]
    ratio = point.perplexity.ratio.model_copy(update={"mean": None, "ci": None})
    broken = point.model_copy(update={"perplexity": point.perplexity.model_copy(update={"ratio": ratio})})
    finding = judge(CLAIM, measured(report.model_copy(update={"points": (broken,)})))
    assert finding.outcome == "not identifiable"
    assert finding.sentence.startswith("GPTQ, 4 bits has no interval")


def test_a_refused_setting_says_why():
    report = swept({4: (1.0, 1.0, 1.0)})
    refused = report.points[0].model_copy(update={"perplexity": None, "refused": "no such layer"})
    finding = judge(CLAIM, measured(report.model_copy(update={"points": (refused,)})))
    assert (finding.outcome, finding.sentence) == ("not identifiable", "GPTQ, 4 bits: no such layer.")


def test_a_setting_that_is_not_there_and_a_report_of_another_kind_lose_no_other_claim():
    assert judge(CLAIM, measured(swept({8: (1.0, 1.0, 1.0)}))).sentence == "gptq-bits has no setting 4."
    assert judge(CLAIM, measured(compared())).outcome == "not measured"
