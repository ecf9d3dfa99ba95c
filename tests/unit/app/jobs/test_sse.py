import asyncio
import json

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.event import LogEvent
from app.jobs.sse import NumberedStream, frame, parse_last_event_id, respond
from app.main import create_app
from app.problems import RequestError
from app.settings import Settings


def test_last_event_ids_are_numbers_from_zero():
    assert parse_last_event_id(None) == 0
    assert parse_last_event_id("") == 0
    assert parse_last_event_id("17") == 17


@pytest.mark.parametrize("text", ["-1", "1.5", "1-0", "abc", "٣", "1" * 17, " 3", "9" * 16])
def test_anything_else_is_refused(text):
    with pytest.raises(RequestError) as caught:
        parse_last_event_id(text)
    assert caught.value.code is ErrorCode.INVALID_CURSOR


def test_a_frame_is_one_data_line_whatever_the_message_holds():
    event = LogEvent(message="a\n\ndata: b\r\x85\u2028é", attempt=1, at=2.5)
    text = frame(event, 7).decode()
    head, name, data, *rest = text.split("\n")
    assert (head, name, rest) == ("id: 7", "event: log", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == event.model_dump()
    assert "\r" not in text


class Endless(NumberedStream):
    async def events(self, after, block_s):
        await asyncio.sleep(block_s)
        return []

    async def quiet(self):
        return None


def endless():
    return Endless("x", 0, 0, stopping=asyncio.Event(), heartbeat_s=60, poll_s=0.01)


async def test_an_owner_has_so_many_open_streams_and_others_have_theirs(tmp_path):
    state = create_app(Settings(home=tmp_path, owner_max_streams=2)).state.hemostat
    open_ = [respond(state, endless(), "ann").body_iterator for _ in range(2)]
    for stream in open_:
        await anext(stream)
    with pytest.raises(HemostatError) as caught:
        respond(state, endless(), "ann")
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert caught.value.retry_after_s
    for owner in ("bob", "", "", ""):  # "": the user of a service without keys
        open_.append(respond(state, endless(), owner).body_iterator)
        await anext(open_[-1])
    await open_[0].aclose()
    respond(state, endless(), "ann")
    for stream in open_:
        await stream.aclose()
    await state.redis.aclose()
