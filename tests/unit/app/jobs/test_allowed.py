"""What a schema allows, in words."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.contracts.requests import SUBMISSION
from app.jobs.allowed import PATTERNS, allowed, sizes


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "integer", "minimum": 2, "maximum": 8}, "a whole number from 2 to 8"),
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 10}, "a whole number from 0 to 9"),
        ({"type": "integer", "exclusiveMinimum": 0}, "a whole number at least 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 2}, "a number above 0 and at most 2"),
        ({"type": "number"}, "a number"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "string", "minLength": 1}, "a text of at least 1 character"),
        ({"type": "array", "minItems": 1, "maxItems": 5000}, "a list of 1 to 5,000 items"),
        ({"enum": ["row", "layer"], "type": "string"}, "one of row, layer"),
        ({"const": "compare", "type": "string"}, "compare"),
        ({"type": "object", "properties": {}}, "an object"),
        ({}, ""),
    ],
)
def test_a_schema_is_told_in_words(node: dict[str, Any], words: str) -> None:
    assert allowed(node) == words


def test_sizes_of_texts_lists_and_objects() -> None:
    assert sizes({"maxProperties": 16}) == "at most 16 entries"
    assert sizes({"minLength": 1, "maxLength": 128}) == "1 to 128 characters"
    assert sizes({"type": "integer"}) == ""


def patterns(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        yield from node.get("patternProperties", {})
        for inner in node.values():
            yield from patterns(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from patterns(inner)


def test_every_form_that_a_request_asks_for_has_words() -> None:
    asked = set(patterns(SUBMISSION.json_schema()))
    assert len(asked) >= 4
    assert asked <= set(PATTERNS)
