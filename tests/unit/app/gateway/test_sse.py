import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from app.gateway.sse import Event, EventTooLargeError, Parser

LINE = st.sampled_from(
    [
        *(b'data: {"a":1}', b"data:x", b"data", b"data: ", "data: é€".encode(), b"data: [DONE]", b"datax: no"),
        *(b": keep-alive", b"event: response.created", b"id: 7", b"retry: 9", b"", b"nonsense"),
    ]
)


def cut(stream, points):
    edges = sorted({0, len(stream), *(point % (len(stream) + 1) for point in points)})
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


def events(chunks):
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(
    lines=st.lists(LINE, max_size=30),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    points=st.lists(st.integers(0, 10_000), max_size=20),
)
def test_however_the_stream_is_cut_its_events_are_those_that_openais_client_reads(lines, ending, points):
    stream = b"".join(line + ending for line in [*lines, b"", b""])
    expected = [
        Event(sse.data.encode(), (sse.event or "").encode())
        for sse in SSEDecoder().iter_bytes(iter([stream]))
        if any(line.startswith(b"data") for line in lines) and (sse.data or sse.event)
    ]
    found = [event for event in events(cut(stream, points)) if event.data or event.name]
    # OpenAI's client also gives events without data; a browser does not, and neither do we.
    assert found == [event for event in expected if event.data or event in found]


def test_carriage_returns_alone_end_lines_too():
    assert events([b"data: a\r", b"\rdata: b\r\r", b"\n"]) == [Event(b"a"), Event(b"b")]


def test_lines_of_data_are_joined_and_written_apart_again():
    (event,) = events([b"event: e\ndata: a\ndata:  b\n\n"])
    assert event == Event(b"a\n b", b"e")
    assert events([event.encode()]) == [event]


def test_what_never_ends_is_refused():
    parser = Parser(limit=100)
    assert list(parser.feed(b"data: " + b"x" * 80)) == []
    with pytest.raises(EventTooLargeError):
        list(parser.feed(b"x" * 80))


def test_an_end_that_does_not_come_is_no_event():
    assert events([b"data: a\n\ndata: b\n"]) == [Event(b"a")]
