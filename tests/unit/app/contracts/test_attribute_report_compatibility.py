"""An attribute report that was valid stays valid, and a reader of the first schema can read today's reports."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.contracts.attribute_report import AttributeReport
from app.web.schema import FILES, breaking_changes, report_schema, text_of
from tests.support import internals_blocks
from tests.support.attribute_reports import attribute_variants

GOLDEN = Path(__file__).parent / "golden"
OLD_REPORT = json.loads((GOLDEN / "attribute-1.json").read_text(encoding="utf-8"))
FIRST_SCHEMA = json.loads((GOLDEN / "attribute-1.schema.json").read_text(encoding="utf-8"))
VARIANTS = attribute_variants()
TODAY, FIRST = Draft202012Validator(report_schema("attribute")), Draft202012Validator(FIRST_SCHEMA)


def errors(validator: Draft202012Validator, report: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(report)]


def test_the_oldest_report_is_still_valid() -> None:
    assert errors(TODAY, OLD_REPORT) == []
    read = AttributeReport.model_validate(OLD_REPORT)
    assert json.loads(read.model_dump_json(exclude_unset=True)) == OLD_REPORT


def test_nothing_was_removed_renamed_or_narrowed_since_the_first_schema() -> None:
    assert breaking_changes(FIRST_SCHEMA, report_schema("attribute")) == []


def test_what_was_not_resampled_has_no_stability_and_it_is_null() -> None:
    inside = internals_blocks.dense().model_dump(mode="json")
    alignment = inside["alignment"]
    for one in (*alignment["pairs"], *alignment["gaps"]):
        one["stability"] = None
    report = VARIANTS["full"] | {"internals": inside}
    assert errors(TODAY, report) == errors(FIRST, report) == []
    assert AttributeReport.model_validate(report).internals is not None
    del alignment["gaps"][0]["stability"]
    assert errors(TODAY, report) and errors(FIRST, report)


@pytest.mark.parametrize("name", VARIANTS)
def test_reports_of_today_are_valid_by_both_schemas(name: str) -> None:
    assert errors(TODAY, VARIANTS[name]) == []
    assert errors(FIRST, VARIANTS[name]) == []


def test_the_published_schema_is_what_the_contract_gives() -> None:
    assert FILES["attribute"].read_text(encoding="utf-8") == text_of(report_schema("attribute"))
