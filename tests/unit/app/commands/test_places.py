"""Each field is named by the option that sets it at the prompt of its command, and by its JSON path if none does."""

import json

import pytest
from typer.main import get_command

from app.cli.deploy import WORDS
from app.cli.main import app
from app.commands.options import options_of
from app.commands.places import at_prompt, place_of, words_of_kind
from app.contracts.deployment import DeploymentPatch, DeploymentRequest
from app.kinds.registry import KINDS
from tests.support.submissions import refused


def words_of(kind):
    return words_of_kind(KINDS[kind].request)


def options_at(*command):
    """Every option that the command line really has there."""
    found = get_command(app)
    for name in command:
        found = found.commands[name]
    return {option for one in found.params for option in one.opts if option.startswith("--")}


def paths(schema, node, above=()):
    """The path of each field of a JSON schema, lists and unions left as they are."""
    node = next((one for one in node.get("anyOf", [node]) if one.get("type") != "null"), {})
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    for name, field in node.get("properties", {}).items():
        yield (*above, name)
        yield from paths(schema, field, (*above, name))


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_kind_is_named_by_an_option_that_its_command_has_or_by_its_path(kind):
    schema, there = KINDS[kind].submission.model_json_schema(), options_at(kind)
    for path in paths(schema, schema):
        place = place_of("/" + "/".join(path), words_of(kind))
        named = place.split()[0] in there if place.startswith("--") else place in {".".join(path), path[0].upper()}
        assert named, (path, place)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_kind_is_the_name_of_its_field(kind):
    for option in options_of(KINDS[kind].request):
        assert place_of("/" + "/".join(option.path), words_of(kind)) == option.flag
        assert at_prompt(f"leave `{'.'.join(option.path)}` out", words_of(kind)) == f"leave {option.flag} out"


@pytest.mark.parametrize(("command", "body"), [("create", DeploymentRequest), ("set", DeploymentPatch)])
def test_every_field_of_a_deployment_is_named_by_an_option_of_its_command(command, body):
    for name in set(body.model_fields) - {"name"}:
        assert place_of(f"/{name}", WORDS) in options_at("deploy", command)


@pytest.mark.parametrize(
    ("kind", "pointer", "place"),
    [
        ("mitigate", "/budget/bytes", "--bytes"),
        ("mitigate", "/budget/bits_per_weight", "--bits"),
        ("mitigate", "/budget", "budget"),
        ("sweep", "/budget", "--budget"),
        ("sweep", "/bounds/s0/1", "--bound s0"),
        ("sweep", "/knobs/0/step", "--knob"),
        ("attribute", "/levels/0", "--level"),
        ("attribute", "/directions/0", "directions[0]"),
        ("compare", "/generate_tool_calls", "--generate-tool-calls"),
        ("compare", "/generate_tool_calls/text/source", "generate_tool_calls.text.source"),
        ("compare", "/text/documents/3/text", "--text"),
        ("compare", "/thresholds/severe", "--threshold severe"),
        ("compare", "/metadata/a~1b", "--metadata a/b"),
        ("compare", "/budget", "budget"),
        ("trajectory", "/window", "window"),
        ("trajectory", "/candidates/0/recipe/0/bits", "--also"),
        ("compare", "/candidate/recipe", "--recipe"),
        ("compare", "/candidate/recipe/0/layers/3", "step 1 of --recipe, layers[3]"),
        ("compare", "/candidate/recipe/²/bits", "step ² of --recipe, bits"),
    ],
)
def test_a_part_of_a_field_is_named_by_the_option_only_if_the_option_sets_it(kind, pointer, place):
    assert place_of(pointer, words_of(kind)) == place


@pytest.mark.parametrize(
    ("kind", "field", "option"),
    [
        ("attribute", {"levels": ["lay"]}, "--level "),
        ("mitigate", {"budget": {"bits_per_weight": 0}}, "--bits "),
        ("compare", {"window": 1}, "--window "),
        ("compare", {"generate_tool_calls": {"prompts": 0}}, "`generate_tool_calls.prompts` "),
    ],
)
def test_what_the_service_says_of_a_value_names_the_option(kind, field, option):
    body = {"kind": kind, "reference": {"model": "a"}, "candidate": {"model": "b"}} | field
    error = refused(json.dumps(body).encode())
    assert at_prompt(error.detail, words_of(kind)).startswith(option)
