"""A surface report that was valid stays valid, and a reader of the first schema can read today's reports."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app.contracts.surface_report import Interaction, SurfaceReport
from app.web.schema import FILES, breaking_changes, main, report_schema, text_of
from tests.support.surface_reports import surface_variants

GOLDEN = Path(__file__).parent / "golden"
OLD_REPORT = json.loads((GOLDEN / "surface-1.json").read_text(encoding="utf-8"))
FIRST_SCHEMA = json.loads((GOLDEN / "surface-1.schema.json").read_text(encoding="utf-8"))
VARIANTS = surface_variants()
TODAY, FIRST = Draft202012Validator(report_schema("surface")), Draft202012Validator(FIRST_SCHEMA)


def errors(validator, report):
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(report)]


def test_the_oldest_report_is_still_valid():
    assert errors(TODAY, OLD_REPORT) == []
    read = SurfaceReport.model_validate(OLD_REPORT)
    assert json.loads(read.model_dump_json(exclude_unset=True)) == OLD_REPORT


def test_what_was_once_said_to_add_up_is_read_as_what_was_shown():
    told = {"first": 1, "second": 1, "order": "as given", "nats": {"mean": 0.0, "ci": [-0.1, 0.1]}, "p": 0.9}
    assert Interaction.model_validate(told | {"kind": "adds up"}).kind == "no_departure_shown"
    assert Interaction.model_validate(told | {"kind": "compounds"}).kind == "compounds"


def test_nothing_was_removed_renamed_or_narrowed_since_the_first_schema():
    assert breaking_changes(FIRST_SCHEMA, report_schema("surface")) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_reports_of_today_are_valid_by_both_schemas(name):
    assert errors(TODAY, VARIANTS[name]) == []
    assert errors(FIRST, VARIANTS[name]) == []


def test_the_published_schema_is_what_the_contract_gives():
    assert FILES["surface"].read_text(encoding="utf-8") == text_of(report_schema("surface"))
    assert main(["--check", "--kind", "surface"]) == 0


def test_the_kinds_are_told_apart():
    assert any("kind" in error for error in errors(TODAY, OLD_REPORT | {"kind": "compare"}))
