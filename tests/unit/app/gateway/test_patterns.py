"""What is taken of patterns, lengths and grammars. The times of the comments are of xgrammar 0.2.8, in seconds of a
processor, where they are known."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.bounds import check
from app.gateway.constraints import MAX_GRAMMAR
from app.gateway.errors import ApiError, envelope
from app.gateway.patterns import grammar_cost, regex_cost


def having(*parts, **more):
    schema = {"type": "object", "properties": {f"p{index}": part for index, part in enumerate(parts)}} | more
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def named(count, length):
    """Optional properties whose names are nearly the same."""
    schema = {"type": "object", "properties": {"x" * length + str(index): string() for index in range(count)}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def string(**bounds):
    return {"type": "string", **bounds}


def regex(text):
    return {"structured_outputs": {"regex": text}}


def tools(parameters, *, strict=False, **more):
    return {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters, "strict": strict}}]
    } | more


def grammar(text):
    return {"structured_outputs": {"grammar": text}}


UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
ARITHMETIC = (
    'root ::= expr\nexpr ::= term (("+" | "-") term)*\nterm ::= factor (("*" | "/") factor)*\n'
    'factor ::= [0-9]+ | "(" expr ")"  # what is a | b?\n'
)
TAKEN: list[dict[str, Any]] = [
    having(*[string(pattern=r"^\d{4}-\d{2}-\d{2}$")] * 50),
    having(*[string(pattern=UUID)] * 20),
    having(*[string(pattern=r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$")] * 20),
    having(string(maxLength=100_000)),
    having(*[string(maxLength=150)] * 200),  # one rule
    having(string(maxLength=50), string(minLength=1, maxLength=100)),
    having(*[string(format="uri")] * 5, *[{"type": "number", "minimum": 0.5}] * 30),
    having(*[string(format="uri-template")] * 15),
    having(*[{"type": "integer", "minimum": 1, "maximum": 10}] * 48),
    having(*[string()] * 512),
    having(*[string()] * 512, required=[f"p{index}" for index in range(512)], additionalProperties=False),
    having(*[string()] * 100, additionalProperties=True),
    having(*[string()] * 85, minProperties=1, maxProperties=42),
    named(100, 40),
    having(*[{"$ref": "#/$defs/n"}] * 400, **{"$defs": {"n": {"type": "array", "maxItems": 10_000}}}),
    tools({"prefixItems": [string(format="uri")] * 50}),  # no grammar
    having(*[{"properties": {"format": string(), "minimum": string(), "maximum": string()}}] * 50),
    having({"pattern": "no string, but a property of this name"}),
    regex(r"(\+\d{1,3})? ?(\(\d{1,4}\))? ?\d{1,14}"),
    grammar(ARITHMETIC),
    grammar('?start: sum\n?sum: product | sum "+" product\nproduct: /[0-9]+/'),
]
MANY = "root ::= " + " ".join(["r"] * 40)
REFUSED: list[tuple[dict[str, Any], str]] = [
    (having(*[string(pattern="^[a-z]{1,900}x[0-9]{1,900}$")] * 500), "response_format"),  # 69.5
    (having(*[string(pattern="^[a-z]{1,100}$")] * 100), "response_format"),  # 16.5
    (having(*[string(maxLength=1000 + index) for index in range(20)]), "response_format"),  # 58
    (
        having(additionalProperties=False, patternProperties={"^[^x]{1,100}$": {}, "^[^y]{1,128}z{2}.{128}$": {}}),
        "response_format",
    ),
    (having(*[string(format="uri-template")] * 15, *[string()] * 497), "response_format"),  # 2.5
    (having(*[string()] * 512, additionalProperties=True), "response_format"),  # 7.5
    (having(*[string()] * 128, additionalProperties={"type": "string"}), "response_format"),  # 2
    (having(*[string()] * 128, unevaluatedProperties=True), "response_format"),  # 2
    (having(*[string()] * 140, maxProperties=70), "response_format"),  # 7.3
    (having(*[string()] * 140, minProperties=70), "response_format"),  # 5.3
    (named(512, 100), "response_format"),  # 4.2
    (named(64, 900), "response_format"),  # 4.2
    (having(*[string(format="uri")] * 195), "response_format"),  # more than 55
    (having(*[string(format="date-time")] * 16), "response_format"),
    (having({"prefixItems": [{"type": "number", "minimum": -0.5, "maximum": 12.25}] * 660}), "response_format"),  # 11
    (having(*[{"type": "integer", "exclusiveMinimum": 1, "maximum": 10}] * 51), "response_format"),
    (having(string(), propertyNames={"pattern": ".{128}" * 3}), "response_format"),
    ({"structured_outputs": {"json": json.dumps({"type": "string", "pattern": "[^x]?" * 50})}}, "structured_outputs"),
    (tools(string(pattern="." * 300), tool_choice="required"), "tools"),
    (tools(string(pattern="." * 300), tool_choice={"type": "function", "function": {"name": "f"}}), "tools"),
    (tools(string(pattern="." * 300), strict=True), "tools"),
    ({"text": {"format": {"type": "json_schema", "schema": string(pattern=".*" * 100)}}}, "text"),
    (regex("[^x]?" * 50), "structured_outputs"),  # minutes
    (regex("[a-z]?" * 200), "structured_outputs"),
    (regex("(b[^x])?" * 50), "structured_outputs"),
    (regex("([^x]|)" * 50), "structured_outputs"),
    (regex(".*" * 500), "structured_outputs"),  # 24
    (regex("." * 2000), "structured_outputs"),  # 15
    (regex(r"[\s\S]" * 400), "structured_outputs"),
    (regex("[^[]{128}" * 3), "structured_outputs"),
    (regex("[^]]{128}" * 3), "structured_outputs"),
    (regex("(((.{20}){20}){20})"), "structured_outputs"),
    (grammar("root ::= " + "[^x] " * 2600), "structured_outputs"),
    (grammar('root ::= r{1,1000}\nr ::= s{1,1000} "x"\ns ::= [^x]{1,1000} "y"'), "structured_outputs"),  # 3.5
    (grammar(f'{MANY}\nr ::= [^x] | ""'), "structured_outputs"),
    (grammar(f"{MANY}\nr ::= s\ns ::= t*\nt ::= [^x]"), "structured_outputs"),
    (grammar(f'root ::= r{" y" * 40}\nr ::= y | ""\ny ::= r'), "structured_outputs"),  # empty by way of a circle
    (grammar("\n".join(f"r{index} ::= r{index + 1}" for index in range(50)) + '\nr50 ::= ""'), "structured_outputs"),
    (grammar("start: " + "/.{100}/ " * 4), "structured_outputs"),
]


def test_what_compiles_soon_is_taken():
    for body in TAKEN:
        check(body)


def test_what_compiles_for_long_is_refused_by_its_field():
    for body, field in REFUSED:
        with pytest.raises(ApiError, match="compile") as caught:
            check(body)
        assert caught.value.status == 400
        assert envelope(caught.value)["error"]["param"].startswith(field)


def test_the_bound_is_of_all_fields_together():
    half = having(string(pattern="[^x]{128}"))
    check(half)
    with pytest.raises(ApiError):
        check(half | {"structured_outputs": {"regex": ".{128}.{60}"}})


def test_more_text_than_is_read_soon_is_refused():
    for body in (
        having(*[string(pattern="(" * 4000)] * 5),
        having({"grammar": "a:" + "(" * 50_000}),
        having(patternProperties={"(" * 20_000: {}}),
        {"structured_outputs": {"json": json.dumps({"pattern": "(" * 20_000})}},
    ):
        with pytest.raises(ApiError, match=str(MAX_GRAMMAR)) as caught:
            check(body)
        assert caught.value.status == 400


@given(text=st.text(alphabet='ab[]^()|*+?{},1\\".:=/# \n', max_size=200))
def test_no_text_breaks_the_estimate_and_more_of_it_costs_no_less(text):
    assert 0 <= regex_cost(text) < float("inf")
    assert grammar_cost(text) >= 0
    plain = text.replace("\\", "").replace("[", "")
    assert regex_cost(f"(?:{plain}){{2}}") >= regex_cost(f"(?:{plain})") - 1e-9


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece", ["[", "[a-a", "[a-aa-a", '"', "/", "(", "{1", "\\", "a-a", "[^", "a::=", "()?", "(a|"]
)
def test_the_estimate_of_any_text_comes_soon(piece):
    for ending in ("", "!]", "]"):
        for beginning in ("", "["):
            text = beginning + piece * (16_000 // len(piece)) + ending
            regex_cost(text)
            grammar_cost(text)
