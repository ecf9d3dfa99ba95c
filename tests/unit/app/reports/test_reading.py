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


def test_a_damaged_report_is_refused_with_the_place(report):
    damaged = report | {"perplexity": report["perplexity"] | {"ratio": {"mean": "text", "ci": None}}}
    with pytest.raises(HemostatError) as raised:
        parse(damaged)
    assert raised.value.pointer == "/perplexity/ratio/mean"
