import json
import shlex
import subprocess

import pytest

from app.commands.recipes import parse_recipe
from app.contracts.request import Thresholds
from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from app.reports.reproduce import of_same_pair, reproduction
from tests.support.reports import compare_report, draw


def report(**options):
    return CompareReport.model_validate(compare_report(draw(documents=3), store_text=False, **options))


def posted(curl: str) -> dict:
    """The body that a shell would send."""
    words = shlex.split(curl.replace("\\\n", " "))
    assert words[words.index("curl") + 1] == "-sS"
    assert "Content-Type: application/json" in words
    return json.loads(words[words.index("-d") + 1])


def test_the_curl_command_sends_the_request_that_was_made():
    made = report()
    body = posted(reproduction(made).curl)
    assert CompareRequest.model_validate(body) == CompareRequest.model_validate(made.request)


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "http://127.0.0.1:8321"),
        ({"HEMOSTAT_URL": ""}, "http://127.0.0.1:8321"),
        ({"HEMOSTAT_URL": "http://example.test:9000"}, "http://example.test:9000"),
        ({"HEMOSTAT_URL": "http://example.test:9000/"}, "http://example.test:9000"),
        ({"HEMOSTAT_URL": "https://example.test/hemostat/"}, "https://example.test/hemostat"),
    ],
)
def test_the_curl_command_goes_to_the_service_that_the_environment_names(environment, address):
    shell = f'curl() {{ printf "%s\\n" "$2"; }}\n{reproduction(report()).curl}'
    done = subprocess.run(["/bin/sh", "-c", shell], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{address}/v1/diagnosis/jobs"]


def test_the_command_line_says_the_same():
    words = shlex.split(reproduction(report(thresholds=Thresholds(severe=0.3))).cli.replace("\\\n", " "))
    assert words[:2] == ["hemostat", "compare"]
    assert words[2:5] == ["smollm2-135m", "--recipe", words[4]]
    assert parse_recipe([words[4]]) == [{"type": "quantize.rtn", "bits": 4}], "without what is a default"
    assert "--threshold severe=0.3" in " ".join(words)


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ({"source": "shipped", "documents": 12}, "shipped:12"),
        ({"source": "self", "tokens": 4096, "temperature": 1.0}, "self:4096"),
        ({"source": "hub", "dataset": "a/b", "column": "body", "split": "test", "documents": 100}, "hub:a/b:body"),
    ],
)
def test_a_text_that_the_command_line_can_name(text, argument):
    cli = reproduction(report(text=text)).cli
    assert f"--text {argument}" in cli


def test_inline_documents_are_not_there_and_that_is_said():
    found = reproduction(report(text={"source": "inline"}))
    assert "not in this report" in found.missing[0]
    assert "DOCUMENTS.jsonl" in found.cli
    found = reproduction(report(recipe=({"type": "quantize.gptq", "calibration": {"source": "inline"}},)))
    assert "not in this report" in found.missing[0]


def test_a_quote_in_a_recipe_does_not_leave_its_word():
    recipe = ({"type": "x'; touch /tmp/owned; '", "note": "$(id) `id`"},)
    found = reproduction(report(recipe=recipe))
    assert posted(found.curl)["candidate"]["recipe"] == list(recipe)
    words = shlex.split(found.cli.replace("\\\n", " "))
    assert parse_recipe([words[words.index("--recipe") + 1]]) == list(recipe)


def test_a_step_keeps_a_null_that_is_no_default():
    recipe = [{"type": "quantize.rtn", "bits": 4, "group_size": None, "layers": None, "symmetric": True}]
    written = shlex.split(of_same_pair(report(), "compare", recipe=recipe))
    (kept,) = parse_recipe([written[written.index("--recipe") + 1]])
    assert kept == {"type": "quantize.rtn", "bits": 4, "group_size": None, "symmetric": True}
