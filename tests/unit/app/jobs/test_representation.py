"""In which form a result is sent, and what a client is told that has it already."""

import pytest
from fastapi import Request

from app.jobs.representation import unchanged


def request(**headers):
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": sent})


@pytest.mark.parametrize("known", ['"a"', 'W/"a"', '"b", "a"', "*"])
def test_what_the_client_has_is_a_304_with_the_tag_and_what_it_varies_by(known):
    answer = unchanged(request(if_none_match=known), '"a"')
    assert answer is not None
    assert (answer.status_code, answer.headers["etag"], answer.headers["vary"]) == (304, '"a"', "accept")


def test_what_the_client_has_not_is_sent():
    assert unchanged(request(), '"a"') is None
    assert unchanged(request(if_none_match='"b"'), '"a"') is None
    assert unchanged(request(if_none_match="*"), '"a"', anything=False) is None
