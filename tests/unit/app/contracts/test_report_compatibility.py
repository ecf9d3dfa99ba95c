"""A report that was valid stays valid, and a reader of the first schema can read today's reports."""

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from app.contracts.report import CompareReport
from app.web.schema import breaking_changes, report_schema
from tests.support.reports import variants

GOLDEN = Path(__file__).parent / "golden"
OLD_REPORT = json.loads((GOLDEN / "report-1.json").read_text(encoding="utf-8"))
FIRST_SCHEMA = json.loads((GOLDEN / "report-1.schema.json").read_text(encoding="utf-8"))
VARIANTS = variants()


TODAY, FIRST = Draft202012Validator(report_schema()), Draft202012Validator(FIRST_SCHEMA)


def errors(validator, report):
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(report)]


def test_the_oldest_report_is_still_valid():
    assert errors(TODAY, OLD_REPORT) == []
    read = CompareReport.model_validate(OLD_REPORT)
    assert json.loads(read.model_dump_json(exclude_unset=True)) == OLD_REPORT


def test_a_slice_of_a_report_from_before_it_had_every_metric_is_still_valid():
    report = copy.deepcopy(VARIANTS["severe"])
    added = {"divergence", "delta_p", "perplexity", "agreement", "entropy"}
    found = report["token_classes"]
    for part in [*found["classes"], *found["by_frequency"], *report["by_position"], *report["by_confidence"]]:
        for name in added:
            del part[name]
    assert errors(TODAY, report) == []
    read = CompareReport.model_validate(report)
    assert all(getattr(one, name) is None for one in read.token_classes.classes for name in added)


def test_nothing_was_removed_renamed_or_narrowed_since_the_first_schema():
    assert breaking_changes(FIRST_SCHEMA, report_schema()) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_reports_of_today_are_valid_by_both_schemas(name):
    assert errors(TODAY, VARIANTS[name]) == []
    assert errors(FIRST, VARIANTS[name]) == []


def places(node, path=()):
    """Every place of a report that holds a field."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from places(value, (*path, key))


FIXED = {"provenance", "decision", "divergence", "perplexity", "agreement", "histogram", "noise_floor", "delta_p"}


@pytest.mark.parametrize(
    "path",
    [path for path in places(OLD_REPORT) if path[0] in FIXED and not {"seconds", "versions", "recipe"} & set(path)],
    ids="/".join,
)
def test_the_schema_and_the_contract_agree_on_what_may_be_missing(path):
    report = copy.deepcopy(OLD_REPORT)
    holder = report
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    try:
        CompareReport.model_validate(report)
        accepted = True
    except ValidationError:
        accepted = False
    assert (errors(TODAY, report) == []) == accepted


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"severity": "fatal"}, "$.severity"),
        ({"schema": "hemostat.report/2"}, "$.schema"),
        ({"tokens": -1}, "$.tokens"),
        ({"nonfinite_positions": 1.5}, "$.nonfinite_positions"),
        ({"not_tested": "nothing"}, "$.not_tested"),
    ],
)
def test_the_schema_refuses_what_is_no_report(change, place):
    assert any(error.startswith(place) for error in errors(TODAY, OLD_REPORT | change))
