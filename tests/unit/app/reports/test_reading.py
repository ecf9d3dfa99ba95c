import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.reports.reading import parse
from tests.support.reports import compare_report, draw


@pytest.fixture(scope="module")
def report():
    return compare_report(draw(documents=2), store_text=False)


def test_a_report_is_read(report):
    assert parse(report).job == report["job"]


def test_fields_of_a_newer_version_are_dropped_at_every_depth(report):
    newer = report | {"new": 1, "decision": report["decision"] | {"newer": {"x": 2}}}
    assert parse(newer) == parse(report)


@pytest.mark.parametrize("wrong", [None, [], "text", {}, {"schema": "hemostat.report/2"}])
def test_anything_else_is_refused(wrong):
    with pytest.raises(HemostatError, match=r"not a report of schema hemostat\.report/1") as raised:
        parse(wrong)
    assert raised.value.code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({"perplexity": {"reference": 8.0, "candidate": 9.0, "ratio": {"mean": "text"}}}, "/perplexity/ratio/mean"),
        ({"warnings": ["The text is short."]}, "/warnings/0"),
        ({"not_tested": ["sampling"]}, "/not_tested/0"),
    ],
)
def test_a_report_of_another_version_is_refused_with_the_place_and_what_to_do(report, other, place):
    with pytest.raises(HemostatError) as raised:
        parse(report | other)
    assert raised.value.code is ErrorCode.JOB_UNREADABLE
    assert place in raised.value.detail
    assert "submit its job again" in raised.value.hint
