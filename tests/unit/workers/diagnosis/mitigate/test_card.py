"""The model card says of the test what is so."""

import pytest

from app.contracts.mitigate_report import MitigateReport
from tests.support.mitigate_reports import mitigate_report
from workers.diagnosis.mitigate.card import model_card


@pytest.mark.parametrize("allowed", [False, True])
def test_the_test_took_part_in_nothing_unless_an_overlap_was_allowed(*, allowed: bool) -> None:
    report = mitigate_report()
    report["request"]["allow_overlap"] = allowed
    card = " ".join(model_card(MitigateReport.model_validate(report), []).split())
    assert ("that took no part in fitting or choosing and were read once" in card) is not allowed
    assert ("treatments may have looked at some of them" in card) is allowed
