"""What a record keeps of a request, and how a list names it."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from app.cli.recipes import parse_text
from app.contracts.requests import REQUEST
from app.contracts.text import TextSource
from app.jobs.record import read_record, request_fields, text_name

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
def test_a_text_is_named_as_the_command_line_reads_it(named: str) -> None:
    assert text_name(TEXT.validate_python(parse_text(named))) == named


def test_documents_that_came_with_the_request_are_counted_and_not_told() -> None:
    told = text_name(TEXT.validate_python({"source": "inline", "documents": [{"id": "a", "text": "secret"}]}))
    assert told == "inline:1"
    assert text_name(TEXT.validate_python({"source": "file", "path": "a/b.txt"})) == "file:a/b.txt"


@pytest.mark.parametrize(("kind", "window"), [("compare", 64), ("tasks", 64), ("trajectory", None)])
def test_a_record_tells_the_text_and_the_window_where_the_kind_has_one(kind: str, window: int | None) -> None:
    asked: dict[str, Any] = {
        "kind": kind,
        "reference": {"model": "tiny"},
        "candidate": {"model": "tiny"},
        "text": {"source": "shipped", "documents": 12},
        "window": 64,
    }
    if kind == "tasks":
        asked["tasks"] = [{"source": "shipped"}]
    job = read_record(WRITTEN | request_fields(REQUEST.validate_python(asked))).job
    assert (job.text, job.window) == ("shipped:12", window)


def test_a_record_of_an_earlier_version_tells_neither() -> None:
    fields = WRITTEN | {
        "kind": "compare",
        "reference": '{"model": "m"}',
        "candidate": '{"model": "m"}',
        "metadata": "{}",
    }
    job = read_record(fields).job
    assert (job.text, job.window) == (None, None)
