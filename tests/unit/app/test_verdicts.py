"""The rule of `--fail-on`, over every pair of classes an interval can touch."""

import pytest

from app.contracts.report import SEVERITIES, Mean, SeverityVerdict
from app.contracts.request import Thresholds
from app.verdicts import fails


def decision(*classes):
    return SeverityVerdict(
        severity=classes[-1],
        classes=classes,
        conclusive=len(classes) == 1,
        rule="",
        thresholds=Thresholds(),
        excess_kl=Mean(mean=0.1, ci=None),
        minimum_detectable_effect=None,
        tokens_to_decide=None,
    )


@pytest.mark.parametrize(
    ("classes", "level", "outcome"),
    [
        (("none",), "mild", "pass"),
        (("mild",), "mild", "fail"),
        (("mild",), "moderate", "pass"),
        (("severe",), "moderate", "fail"),
        (("collapse",), "collapse", "fail"),
        (("severe",), "collapse", "pass"),
        (("none", "mild"), "mild", "inconclusive"),
        (("mild", "moderate"), "mild", "fail"),
        (("mild", "moderate"), "severe", "pass"),
        (("none", "mild", "moderate"), "moderate", "inconclusive"),
        (SEVERITIES, "mild", "inconclusive"),
        (SEVERITIES, "collapse", "inconclusive"),
    ],
)
def test_a_level_fails_only_when_every_touched_class_reaches_it(classes, level, outcome):
    assert fails(decision(*classes), level) == outcome
    assert fails(decision(*classes).model_dump(mode="json"), level) == outcome


@pytest.mark.parametrize("level", ["none", "Severe", "fatal", ""])
def test_what_is_no_level_is_refused(level):
    with pytest.raises(ValueError, match="mild, moderate, severe, collapse"):
        fails(decision("none"), level)


def test_classes_that_a_newer_service_may_name_decide_nothing():
    assert fails({"classes": ["mild", "negligible"]}, "mild") == "inconclusive"
    assert fails({"classes": []}, "mild") == "inconclusive"
