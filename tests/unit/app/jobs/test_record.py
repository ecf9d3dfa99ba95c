"""What a record keeps of a request, and how a list names it."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from app.commands.recipes import parse_text
from app.contracts.text import TextSource
from app.jobs.record import read_record, request_fields, text_name
from app.kinds.registry import requests

TEXT: TypeAdapter[TextSource] = TypeAdapter(TextSource)
WRITTEN = {
    "id": "diag_1",
    "status": "queued",
    "attempt": "0",
    "tries": "0",
    "events": "0",
    "created_at": "1",
    "queued_at": "1",
    "updated_at": "1",
}


@pytest.mark.parametrize(
    "named", ["shipped", "shipped:60", "calibration", "classes:5", "self:4096", "hub:a/b", "hub:a/b:body"]
)
def test_a_text_is_named_as_the_command_line_reads_it(named):
    assert text_name(TEXT.validate_python(parse_text(named))) == named


def test_documents_that_came_with_the_request_are_counted_and_not_told():
    told = text_name(TEXT.validate_python({"source": "inline", "documents": [{"id": "a", "text": "secret"}]}))
    assert told == "inline:1"
    assert text_name(TEXT.validate_python({"source": "file", "path": "a/b.txt"})) == "file:a/b.txt"


@pytest.mark.parametrize(("kind", "window"), [("compare", 64), ("tasks", 64), ("trajectory", None)])
def test_a_record_tells_the_text_and_the_window_where_the_kind_has_one(kind, window):
    asked: dict[str, Any] = {
        "kind": kind,
        "reference": {"model": "tiny"},
        "self_check": True,
        "candidate": {"model": "tiny"},
        "text": {"source": "shipped", "documents": 12},
        "window": 64,
    }
    if kind == "tasks":
        asked["tasks"] = [{"source": "shipped"}]
    job = read_record(WRITTEN | request_fields(requests().validate_python(asked))).job
    assert (job.text, job.window) == ("shipped:12", window)


@pytest.mark.parametrize(
    ("kind", "texts", "text", "tested"),
    [
        # What a calibration is fitted on when nothing is said ships apart from what is scored.
        ("calibrate", {}, "calibration", "shipped"),
        ("calibrate", {"text": "calibration:8", "test_text": "classes"}, "calibration:8", "classes"),
        ("calibrate", {"text": "shipped:60"}, "shipped:60", None),
        ("mitigate", {}, "shipped", None),
        ("mitigate", {"text": "shipped:60", "test_text": "hub:a/b"}, "shipped:60", "hub:a/b"),
        ("compare", {"text": "shipped:60"}, "shipped:60", None),
    ],
)
def test_a_record_names_the_text_that_the_class_is_measured_on(kind, texts, text, tested):
    asked = {"kind": kind, "reference": {"model": "tiny"}, "self_check": True, "candidate": {"model": "tiny"}}
    asked |= {field: parse_text(named) for field, named in texts.items()}
    job = read_record(WRITTEN | request_fields(requests().validate_python(asked))).job
    assert (job.text, job.test_text) == (text, tested)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"split": "test"}, "hub:a/b"),
        ({"split": "train"}, "hub:a/b, split train"),
        ({"config": "c", "split": "train", "column": "body"}, "hub:a/b:body, config c, split train"),
    ],
)
def test_a_text_of_the_hub_is_named_with_its_config_and_a_split_that_is_not_the_default(fields, named):
    assert text_name(TEXT.validate_python({"source": "hub", "dataset": "a/b"} | fields)) == named
