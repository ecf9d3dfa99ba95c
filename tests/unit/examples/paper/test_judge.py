"""A claim is decided by its rule, and what cannot be decided says why."""

import pytest

from examples.paper.claim import claims
from examples.paper.judge import judge
from examples.paper.measure import Measured
from tests.support.paper_reports import compared, swept

CLAIM = next(claim for claim in claims() if claim.id == "cliff")


def measured(report):
    return {name: Measured(name, report, 1.0) for name in ("gptq-bits", "rtn-bits")}


def bits(three=(1.2, 1.1, 1.24)):
    """Perplexity over the original's at 8, 4, 3 and 2 bits."""
    return swept({8: (1.0, 1.0, 1.0), 4: (1.0, 1.0, 1.0), 3: three, 2: (9.0, 8.0, 10.0)})


def changed(report, **update):
    """The report, its setting of three bits changed."""
    points = tuple(point.model_copy(update=update) if point.value == 3 else point for point in report.points)
    return report.model_copy(update={"points": points})


@pytest.mark.parametrize(
    ("three", "outcome"),
    [((1.2, 1.1, 1.24), "confirmed"), ((1.3, 1.25, 1.4), "refuted"), ((1.24, 1.2, 1.3), "not identifiable")],
)
def test_the_rule_decides(three, outcome):
    assert judge(CLAIM, measured(bits(three))).outcome == outcome


def test_a_job_without_a_report_leaves_the_claim_unmeasured():
    without = Measured("gptq-bits", why="the job ended with disk_full: no room")
    finding = judge(CLAIM, measured(bits()) | {"gptq-bits": without})
    assert (finding.outcome, finding.sentence) == ("not measured", "gptq-bits: the job ended with disk_full: no room.")
    assert finding.figures == finding.charts == ()


def test_a_number_without_an_interval_identifies_nothing():
    perplexity = bits().points[2].perplexity
    ratio = perplexity.ratio.model_copy(update={"mean": None, "ci": None})
    broken = changed(bits(), perplexity=perplexity.model_copy(update={"ratio": ratio}))
    finding = judge(CLAIM, measured(broken))
    assert finding.outcome == "not identifiable"
    assert finding.sentence.startswith("GPTQ, 3 bits has no interval")


def test_a_setting_that_is_not_there_and_a_report_of_another_kind_lose_no_other_claim():
    assert judge(CLAIM, measured(swept({8: (1.0, 1.0, 1.0)}))).sentence == "gptq-bits has no setting 3."
    assert judge(CLAIM, measured(compared())).outcome == "not measured"
