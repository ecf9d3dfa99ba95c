"""Each class on hand-made text: what it takes, and what looks like it and is not."""

import json
from typing import Any

import pytest

from tests.unit.workers.text.token_classes.making import chosen, made
from workers.text.token_classes.code import code
from workers.text.token_classes.json_text import calls_in, json_structure, json_values, tool_arguments, tool_name
from workers.text.token_classes.language import non_english
from workers.text.token_classes.names import names
from workers.text.token_classes.plain import FIRST_TOKENS, answer_start, numbers, punctuation, template

CALL = '{"name": "find_trains", "arguments": {"from": "Basel", "after": 9}}'
# Of a tool's arguments.
SCHEMA = {"type": "object", "properties": {"type": {"type": "string"}, "title": {"type": "string"}}}


def test_numbers_with_the_separators_inside_them() -> None:
    text = made("It cost 1,250.50 on 2031-03-14 at 09:30, up 12% . Chapter 3. None of ten. Version x.y")
    assert chosen(text, numbers(text)) == ["1,250.50", "2031-03-14", "09:30", "12%", "3"]


def test_punctuation_is_signs_alone() -> None:
    text = made("Well, he said: stop! It's 3.5 — or a_b?")
    assert "".join(chosen(text, punctuation(text))) == ",:!'.—_?"


def test_json_structure_stands_only_where_a_parser_accepts_it() -> None:
    text = made('Reply: {"a": [1, {"b": "x: {y}"}]} and {not: json} or [1, 2] or {} end.')
    assert "".join("".join(chosen(text, json_structure(text))).split()) == '{"":[,{"":""}]}'


def test_json_within_what_is_none() -> None:
    broken = '[{"a": 1}, {"b": 2}, oops'
    assert [found.value for found in json_values(broken)] == [{"a": 1}, {"b": 2}]
    assert [found.value for found in json_values('{"x": {"y": {"z": 1}}, ')] == [{"y": {"z": 1}}]
    assert [found.value for found in json_values('"quoted {" then {"a": "}"} {"c"')] == [{"a": "}"}]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_of_json_is_not_json(word: str) -> None:
    """Python's parser takes it, no other does."""
    assert list(json_values(f'{{"a": {word}}} and [{{"b": [{word}]}}]')) == []
    assert [found.value for found in json_values(f'{{"x": "{word}", "y": {{"z": 1}}, "w": {word}}}')] == [{"z": 1}]
    filler = "f" * 2000
    far = f'{{"said": {{"{word}": "{filler}"}}, "a": {word}, "b": {{"c": 2}}}}'
    assert [found.value for found in json_values(far)] == [{word: filler}, {"c": 2}]
    text = made(f'{{"a": {word}}}')
    assert not json_structure(text).any()
    assert list(calls_in(f'{{"name": "f", "arguments": {{"x": {word}}}}}')) == []


@pytest.mark.parametrize(
    "text", ["[1," * 30_000, "{" * 30_000, "[" * 30_000, '{"a":' * 3_000, '"' * 30_001 + "{", '{"a":NaN,' * 9_000]
)
@pytest.mark.timeout(120)
def test_hostile_brackets_are_read_once(text: str) -> None:
    """A scan that begins anew at each bracket takes minutes: the test would end by its time-out."""
    assert list(json_values(text)) == []


def test_a_call_is_found_by_its_shape() -> None:
    (call,) = calls_in(f"<tool_call>\n{CALL}\n</tool_call>")
    assert (call.name, call.arguments) == ("find_trains", {"from": "Basel", "after": 9})
    text = made(f"So I call {CALL} now.")
    assert chosen(text, tool_name(text)) == ["find_trains"]
    (arguments,) = chosen(text, tool_arguments(text))
    assert json.loads(arguments[:-1] if arguments.count("}") > 1 else arguments) == {"from": "Basel", "after": 9}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"tool": "a", "args": {"x": 1}}, {"function": "b", "input": {}}]', ["a", "b"]),
        ('{"calls": [{"name": "deep", "arguments": {"name": "inner", "arguments": {"k": 1}}}]}', ["deep"]),
        ('{"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}', []),
        ('{"name": "Anna", "arguments": "many"}', []),
        ('{"name": "", "arguments": {}}', []),
        ('{"name": "counts", "arguments": {"to": ' + "7" * 9000 + "}}", ["counts"]),
    ],
)
def test_calls_and_what_is_none(text: str, expected: list[str]) -> None:
    assert [call.name for call in calls_in(text)] == expected


@pytest.mark.parametrize(
    ("value", "known", "unknown"),
    [
        ({"name": "open_ticket", "parameters": {"type": "bug", "title": "x"}}, True, False),
        ({"name": "open_ticket", "parameters": {"properties": {"a": 1}}}, True, False),
        ({"name": "open_ticket", "description": "I open one.", "arguments": {"title": "x"}}, True, False),
        ({"name": "open_ticket", "parameters": SCHEMA}, False, False),
        ({"name": "open_ticket", "description": "Opens one.", "parameters": SCHEMA}, False, False),
        ({"type": "function", "function": {"name": "open_ticket", "parameters": SCHEMA}}, False, False),
        ({"name": "now", "parameters": {}}, True, True),
        ({"name": "now", "description": "Tells the time.", "parameters": {}}, False, False),
        (
            {"name": "find", "parameters": {"type": "object", "properties": {"q": {}}}},
            False,
            False,
        ),  # nearly its schema
        ({"name": "find", "description": "Finds.", "parameters": {"q": "x"}}, True, False),
        ({"name": "another", "parameters": {"type": "bug"}}, False, False),
    ],
)
def test_the_name_of_a_known_tool_makes_a_call(value: dict[str, Any], known: bool, unknown: bool) -> None:
    """Unless the object repeats what the tool was defined by, or nearly so."""
    text = json.dumps(value)
    found = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    tools = {"open_ticket": SCHEMA, "now": {}, "find": found}
    assert [call.name for call in calls_in(text, tools)] == [value.get("name")] * known
    assert [call.name for call in calls_in(text)] == [value.get("name")] * unknown


def test_parameters_are_a_call_s_only_where_the_assistant_says_it() -> None:
    text = '{"name": "find", "parameters": {"from": "string"}}'
    defined, said = made(text), made(text, answers=((0, len(text)),))
    assert not tool_name(defined).any()
    assert chosen(said, tool_name(said)) == ["find"]


def test_the_template_s_tokens_are_what_nobody_said() -> None:
    text = "<user>What is it?<end><assistant>A bell.<end>"
    said = (text.index("What"), text.index("What") + 11), (text.index("A bell"), text.index("A bell") + 7)
    chat = made(text, conversation=True, contents=said, answers=said[1:])
    assert chosen(chat, template(chat)) == ["<user>", "<end><assistant>", "<end>"]
    assert chosen(chat, punctuation(chat)) == ["?", "."]
    assert not template(made(text)).any()


def test_an_answer_begins_with_its_first_tokens() -> None:
    text = "ask one two three four five six seven eight nine ten ask yes no"
    first, second = (4, text.index(" ask")), (text.index("yes"), len(text))
    chat = made(text, conversation=True, contents=(first, second), answers=(first, second))
    assert FIRST_TOKENS == 8
    assert chosen(chat, answer_start(chat)) == ["one two three four five six seven eight", "yes no"]


def test_names_are_capitals_of_mid_sentence() -> None:
    text = made(
        "There Marit waited. Marit saw Mr Odhiambo in May. They may go. The dog I'll call `Rex Foo`. I'm here, Anna's."
    )
    assert chosen(text, names(text)) == ["Marit", "Marit", "Mr Odhiambo", "Anna"]


def test_german_nouns_are_no_names() -> None:
    text = made("We met Ilse there.\n\nDie Frau ist nicht in der Stadt und hat das Haus von Ilse.\n\nThe road to Ilse.")
    assert chosen(text, names(text)) == ["Ilse", "Ilse"]


@pytest.mark.parametrize(
    ("paragraph", "foreign"),
    [
        ("Der Hund ist nicht in der Stadt und das ist gut.", True),
        ("Les enfants dans le jardin sont avec nous.", True),
        ("El molino del valle no muele desde hace años, pero la rueda sigue.", True),
        ("The die is cast, and that was the end of it.", False),
        ("Error 404: file not found", False),
        ("`der` and `und` are German words, and that is all.", False),
    ],
)
def test_paragraphs_are_told_by_their_small_words(paragraph: str, foreign: bool) -> None:
    text = made(paragraph)
    assert non_english(text).all() == foreign
    assert non_english(text).any() == foreign


def test_code_by_fence_by_backticks_by_domain_and_by_its_lines() -> None:
    fenced = made("Try this:\n```py\nx = f(1)\n```\nDone, with `y` too.")
    assert chosen(fenced, code(fenced)) == ["x = f(1)", "y"]
    lines = "import os\n\ndef f(a):\n    b = a + 1\n    return b\n"
    plain = made(f"It reads so:\n\n{lines}\nThat is all.")
    assert "".join(chosen(plain, code(plain)[:]))[:6] == "import"
    assert not code(made("A letter.\nIt has three lines.\nNone of them is code, I think (or so).")).any()
    assert code(made("anything at all", domain="code")).all()
    assert not code(made("anything at all", domain="code", conversation=True, contents=((0, 15),))).any()


def test_json_is_not_code() -> None:
    text = made('{\n  "a": 1,\n  "b": {"c": 2},\n  "d": 3\n}\n')
    assert not code(text).any()
