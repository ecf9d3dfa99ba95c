import copy
import json

import pytest
from jsonschema import Draft202012Validator

from app.web.schema import PUBLISHED, breaking_changes, main, report_schema, text_of


def test_it_is_a_schema_of_draft_2020_12():
    schema = report_schema()
    Draft202012Validator.check_schema(schema)
    assert {"schema", "kind", "severity", "divergence"} <= set(schema["required"])


def test_objects_are_left_open_for_fields_of_newer_reports():
    assert '"additionalProperties": false' not in text_of(report_schema())


def test_a_property_that_is_called_title_would_stay():
    from app.web import schema

    assert schema._published({"properties": {"title": {"title": "Title", "type": "string"}}}) == {
        "properties": {"title": {"type": "string"}}
    }


def test_nothing_breaks_what_is_the_same():
    assert breaking_changes(report_schema(), report_schema()) == []


def test_an_optional_field_may_be_added():
    new = copy.deepcopy(report_schema())
    new["properties"]["note"] = {"type": "string"}
    new["$defs"]["Mean"]["properties"]["n"] = {"type": "integer"}
    assert breaking_changes(report_schema(), new) == []


def remove(schema):
    del schema["properties"]["severity"]


def remove_nested(schema):
    del schema["$defs"]["Distribution"]["properties"]["p99"]


def rename(schema):
    schema["properties"]["tokens_scored"] = schema["properties"].pop("tokens")
    schema["required"] = ["tokens_scored" if name == "tokens" else name for name in schema["required"]]


def require(schema):
    schema["properties"]["note"] = {"type": "string"}
    schema["required"].append("note")


def relax(schema):
    schema["required"].remove("perplexity")


def retype(schema):
    schema["properties"]["tokens"]["type"] = "string"


def widen_values(schema):
    schema["$defs"]["SeverityVerdict"]["properties"]["severity"]["enum"].append("fatal")


def narrow(schema):
    schema["$defs"]["Protocol"]["properties"]["vocabulary"]["maximum"] = 1000


def change_item(schema):
    schema["properties"]["not_tested"]["items"]["type"] = "number"


def change_domain(schema):
    del schema["$defs"]["DomainReport"]["properties"]["perplexity"]


def change_null(schema):
    schema["$defs"]["Mean"]["properties"]["ci"] = {"type": "array"}


def close_map(schema):
    del schema["properties"]["domains"]["additionalProperties"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (remove, "/severity"),
        (remove_nested, "/divergence/kl/p99"),
        (rename, "/tokens"),
        (require, "/note"),
        (relax, "/perplexity"),
        (retype, "/tokens"),
        (widen_values, "/decision/severity"),
        (narrow, "/provenance/protocol/vocabulary"),
        (change_item, "/not_tested/*"),
        (change_domain, "/domains/*/perplexity"),
        (change_null, "/ci"),
        (close_map, "/domains"),
    ],
)
def test_what_would_break_readers_or_old_reports_is_named(change, place):
    new = copy.deepcopy(report_schema())
    change(new)
    assert any(place in found for found in breaking_changes(report_schema(), new))


def test_the_published_file_is_what_the_contract_gives():
    assert PUBLISHED.read_text(encoding="utf-8") == text_of(report_schema()), "run: python -m app.web.schema --write"
    assert main(["--check"]) == 0


def test_a_missing_file_is_written_and_then_checks(tmp_path):
    file = tmp_path / "schemas" / "report.json"
    assert main(["--check", "--file", str(file)]) == 1
    assert main(["--write", "--file", str(file)]) == 0
    assert main(["--check", "--file", str(file)]) == 0
    assert [path.name for path in file.parent.iterdir()] == ["report.json"]


def test_a_change_that_breaks_is_not_written(tmp_path, capsys):
    file = tmp_path / "report.json"
    older = report_schema()
    older["properties"]["gone"] = {"type": "string"}
    file.write_text(json.dumps(older), encoding="utf-8")
    assert main(["--write", "--file", str(file)]) == 1
    assert "/gone: removed or renamed" in capsys.readouterr().err
    assert json.loads(file.read_text(encoding="utf-8")) == older


def test_a_harmless_change_is_written(tmp_path):
    file = tmp_path / "report.json"
    older = report_schema()
    del older["properties"]["request"]
    file.write_text(json.dumps(older), encoding="utf-8")
    assert main(["--write", "--file", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == text_of(report_schema())
