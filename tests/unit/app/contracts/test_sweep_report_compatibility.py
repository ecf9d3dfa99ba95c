"""A sweep report that was valid stays valid, and a reader of the first schema can read today's reports."""

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app.contracts.sweep_report import SweepReport
from app.web.schema import FILES, breaking_changes, main, report_schema, text_of
from tests.support.sweep_reports import sweep_variants

GOLDEN = Path(__file__).parent / "golden"
OLD_REPORT = json.loads((GOLDEN / "sweep-1.json").read_text(encoding="utf-8"))
FIRST_SCHEMA = json.loads((GOLDEN / "sweep-1.schema.json").read_text(encoding="utf-8"))
VARIANTS = sweep_variants()
TODAY, FIRST = Draft202012Validator(report_schema("sweep")), Draft202012Validator(FIRST_SCHEMA)


def errors(validator, report):
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(report)]


def test_the_oldest_report_is_still_valid():
    assert errors(TODAY, OLD_REPORT) == []
    read = SweepReport.model_validate(OLD_REPORT)
    assert json.loads(read.model_dump_json(exclude_unset=True)) == OLD_REPORT


def test_nothing_was_removed_renamed_or_narrowed_since_the_first_schema():
    assert breaking_changes(FIRST_SCHEMA, report_schema("sweep")) == []


def test_an_error_at_left_out_points_may_be_missing_and_is_then_null():
    report = copy.deepcopy(OLD_REPORT)
    for form in (report["threshold"], *report["threshold"]["rivals"]):
        form["left_out_error"] = None
    assert errors(TODAY, report) == errors(FIRST, report) == []
    assert json.loads(SweepReport.model_validate(report).model_dump_json(exclude_unset=True)) == report
    del report["threshold"]["left_out_error"]
    assert errors(TODAY, report) and errors(FIRST, report)


@pytest.mark.parametrize("name", VARIANTS)
def test_reports_of_today_are_valid_by_both_schemas(name):
    assert errors(TODAY, VARIANTS[name]) == []
    assert errors(FIRST, VARIANTS[name]) == []


def test_the_published_schema_is_what_the_contract_gives():
    assert FILES["sweep"].read_text(encoding="utf-8") == text_of(report_schema("sweep"))
    assert main(["--check", "--kind", "sweep"]) == 0


def test_the_kinds_are_told_apart():
    assert any("kind" in error for error in errors(TODAY, OLD_REPORT | {"kind": "compare"}))
