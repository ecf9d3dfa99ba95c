import json

import pytest

from app.contracts.errors import ErrorCode
from app.contracts.event import LogEvent
from app.jobs.sse import frame, parse_last_event_id
from app.problems import RequestError


def test_last_event_ids_are_numbers_from_zero() -> None:
    assert parse_last_event_id(None) == 0
    assert parse_last_event_id("") == 0
    assert parse_last_event_id("17") == 17


@pytest.mark.parametrize("text", ["-1", "1.5", "1-0", "abc", "٣", "1" * 17, " 3", "9" * 16])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_last_event_id(text)
    assert caught.value.code is ErrorCode.INVALID_CURSOR


def test_a_frame_is_one_data_line_whatever_the_message_holds() -> None:
    event = LogEvent(message="a\n\ndata: b\r\x85\u2028é", attempt=1, at=2.5)
    text = frame(event, 7).decode()
    head, name, data, *rest = text.split("\n")
    assert (head, name, rest) == ("id: 7", "event: log", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == event.model_dump()
    assert "\r" not in text
