"""Which place of a body pydantic's location means, and what is said of it."""

import pytest

from app.jobs.faults import PATTERNS, Schema, fields_of, pointer_of
from app.kinds.registry import submissions

SCHEMA = Schema(submissions().json_schema())
STEP = ("candidate", "recipe", 0)


@pytest.mark.parametrize(
    ("loc", "path", "of_name"),
    [
        (("tasks", *STEP, "quantize.rtn", "bits"), (*STEP, "bits"), False),
        (("tasks", *STEP), STEP, False),
        (("tasks", "tasks", 0, "file", "path"), ("tasks", 0, "path"), False),
        (("tasks", "tasks"), ("tasks",), False),
        (("tasks",), (), False),
        (("tasks", "metadata", "k"), ("metadata", "k"), False),
        (("tasks", "metadata", "k", "[key]"), ("metadata", "k"), True),
        # The tag of a decoder may be called as its field.
        (("trajectory", "decoders", 0, "temperature"), ("decoders", 0), False),
        (("trajectory", "decoders", 0, "temperature", "temperature"), ("decoders", 0, "temperature"), False),
        # What a union of plain values was read as is no place.
        (("sweep", "bounds", "a", 0, "float"), ("bounds", "a", 0), False),
    ],
)
def test_a_location_loses_the_tags_of_unions(loc, path, of_name):
    place = SCHEMA.place(loc)
    assert (place.path, place.of_name) == (path, of_name)


def test_the_fields_of_a_place_are_those_of_its_kind_and_tag():
    assert "window" in fields_of(SCHEMA.place(("compare",)).node)
    assert fields_of(SCHEMA.place(("compare", "candidate")).node) == ["model", "recipe"]
    assert "bits" in fields_of(SCHEMA.place(("compare", *STEP, "quantize.rtn")).node)
    assert "bits" not in fields_of(SCHEMA.place(("compare", *STEP, "prune.magnitude")).node)
    assert "text" in fields_of(SCHEMA.place(("compare", "text", "inline", "documents", 0)).node)
    assert fields_of(SCHEMA.place(("compare", "metadata")).node) == []
    assert fields_of(SCHEMA.place(("cure", "text")).node) == []


def test_a_pointer_is_escaped_and_bounded():
    assert pointer_of(("a/b", 0, "~")) == "/a~1b/0/~0"
    assert len(pointer_of(("x" * 1_000_000,))) < 1000


def _patterns(node):
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        yield from node.get("patternProperties", {})
        for inner in node.values():
            yield from _patterns(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _patterns(inner)


def test_every_form_that_a_request_asks_for_has_words():
    asked = set(_patterns(submissions().json_schema()))
    assert len(asked) >= 4
    assert asked <= set(PATTERNS)
