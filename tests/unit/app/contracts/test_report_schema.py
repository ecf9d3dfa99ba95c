"""The published schema of each kind of report and its contract accept and refuse the same."""

import copy
import json
import random

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from typer.testing import CliRunner

from app.cli.main import app
from app.cli.schema import report_schema
from app.kinds.registry import KINDS
from tests.support.variants import VARIANTS


def accepted(validator, report):
    return bool(validator.is_valid(report))


def read(kind, report):
    try:
        KINDS[kind].report.model_validate(report)
    except ValidationError:
        return False
    return True


def places(node, path=()):
    """Each place of a report that has a field."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from places(value, (*path, key))


def without(report, path):
    report = copy.deepcopy(report)
    holder = report
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return report


@pytest.mark.parametrize("kind", VARIANTS)
def test_schema_and_contract_accept_what_is_drawn(kind):
    schema = report_schema(kind)
    Draft202012Validator.check_schema(schema)
    drawn = VARIANTS[kind]()
    assert [name for name, report in drawn.items() if not read(kind, report)] == []
    few = [*drawn.values()][:1]  # the validator takes seconds per report
    assert all(accepted(Draft202012Validator(schema), report) for report in few)


@pytest.mark.parametrize("kind", VARIANTS)
def test_schema_and_contract_agree_on_what_may_be_missing(kind):
    validator = Draft202012Validator(report_schema(kind))
    report = next(iter(VARIANTS[kind]().values()))
    # What names a kind or a schema has a default in the contract alone.
    fields = [path for path in places(report) if "request" not in path and path[-1] not in {"schema", "kind"}]
    tried = random.Random(7).sample(fields, min(6, len(fields)))
    different = []
    for path in tried:
        cut = without(report, path)
        if accepted(validator, cut) != read(kind, cut):
            different.append("/".join(path))
    assert tried
    assert different == []


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_report_of_another_kind_or_version_is_refused_and_an_unknown_field_is_not(kind):
    validator = Draft202012Validator(report_schema(kind))
    report = next(iter(VARIANTS[kind]().values()))
    other = "compare" if kind != "compare" else "sweep"
    assert not accepted(validator, report | {"kind": other})
    assert not accepted(validator, report | {"schema": "hemostat.report/2"})
    assert not accepted(validator, report | {"tokens": -1})
    assert accepted(validator, report | {"a_later_field": 1})


def test_the_command_prints_the_schema_of_one_kind_or_of_all():
    one = CliRunner().invoke(app, ["schema", "sweep"])
    assert json.loads(one.stdout) == report_schema("sweep")
    assert set(json.loads(CliRunner().invoke(app, ["schema"]).stdout)) == set(KINDS)
    assert CliRunner().invoke(app, ["schema", "sweeep"]).exit_code == 2
