"""What the client of the command line sends, and what it makes of answers that are not a service's."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.cli.client import Client
from app.contracts.errors import ErrorCode, HemostatError

_HERE = "http://127.0.0.1:1"


@pytest.mark.parametrize("text", ["Сколько это будет? 你好 ", "half a pair: \ud83d"])
def test_a_request_is_sent_in_the_fewest_bytes_and_comes_back_as_it_was(text, monkeypatch):
    sent: list[bytes] = []

    def request(_client, method, path, **options):
        sent.append(options["content"])
        return httpx.Response(202, json={"id": "1"}, request=httpx.Request(method, f"http://here{path}"))

    monkeypatch.setattr(httpx.Client, "request", request)
    whole = {"documents": [{"id": "1", "text": text * 100}]}
    with Client(_HERE) as client:
        client.submit(whole)
    assert json.loads(sent[0]) == whole
    if text.isprintable():
        assert len(sent[0]) <= len((text * 100).encode()) + 100


@pytest.mark.parametrize("ask", [Client.job, Client.report, Client.artifacts, Client.cancel])
def test_a_path_is_no_jobs_id_and_no_other_route_is_asked_for(ask):
    with Client(_HERE) as client, pytest.raises(HemostatError, match="'no/such' is not a job's id") as refused:
        ask(client, "no/such")
    assert refused.value.code is ErrorCode.JOB_NOT_FOUND


def answering(monkeypatch, status, body, **headers):
    """Whatever is asked for is answered so."""

    def handle(request):
        return httpx.Response(status, text=body, headers=headers, request=request)

    monkeypatch.setattr(httpx.Client, "_transport_for_url", lambda _client, _url: httpx.MockTransport(handle))


_ASKED: list[Callable[[Client], Any]] = [
    lambda client: client.jobs(),
    lambda client: client.submit({"kind": "compare"}),
    lambda client: client.call("GET", "/v1/deployments"),
    lambda client: client.require_service(),
]


@pytest.mark.parametrize("ask", _ASKED)
def test_a_page_of_another_program_is_told_as_such(ask, monkeypatch):
    answering(monkeypatch, 404, "<html>not here</html>")
    with Client(_HERE) as client, pytest.raises(HemostatError) as caught:
        ask(client)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert "answered 404, but not as a Hemostat service" in caught.value.detail


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]", ""])
def test_an_answer_that_is_no_object_is_not_a_service_s(body, monkeypatch):
    answering(monkeypatch, 200, body)
    with Client(_HERE) as client, pytest.raises(HemostatError) as caught:
        client.jobs()
    assert "answered 200, but not as a Hemostat service" in caught.value.detail


@pytest.mark.parametrize(
    "ask", [*_ASKED, lambda client: client.report_html("a"), lambda client: next(client.watch("a"))]
)
def test_a_redirection_is_told_with_where_it_leads_and_not_followed(ask, monkeypatch):
    monkeypatch.setattr("app.cli.client._PATIENCE_S", 0.0)
    answering(monkeypatch, 301, "", location="https://elsewhere.example/")
    with Client(_HERE, api_key="secret") as client, pytest.raises(HemostatError) as caught:
        ask(client)
    told = f"{caught.value.detail} {caught.value.__cause__}"
    assert "it leads to https://elsewhere.example/" in told
    assert "secret" not in told


@pytest.mark.parametrize("url", ["http://host:port", "ftp://host", "http://"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(HemostatError) as caught:
        Client(url)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "is no address" in caught.value.detail


@pytest.mark.parametrize(("key", "header"), [("abc\n", "Bearer abc"), ("abc", "Bearer abc"), (" ", None), (None, None)])
def test_a_key_is_sent_without_the_blanks_around_it(key, header, monkeypatch):
    seen: list[str | None] = []

    def handle(request):
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(200, json={"data": []}, request=request)

    monkeypatch.setattr(httpx.Client, "_transport_for_url", lambda _client, _url: httpx.MockTransport(handle))
    with Client(_HERE, api_key=key) as client:
        client.jobs()
    assert seen == [header]


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_what_can_be_no_key_is_refused_without_being_shown(key):
    with pytest.raises(HemostatError) as caught:
        Client(_HERE, api_key=key)
    assert "HEMOSTAT_API_KEY" in caught.value.detail
    assert key.splitlines()[0] not in f"{caught.value.detail} {caught.value.hint}"


@pytest.mark.parametrize("late", [httpx.ReadTimeout("slow"), httpx.WriteTimeout("slow")])
def test_a_service_that_is_slow_is_not_told_as_none(late, monkeypatch):
    def handle(request):
        raise late

    monkeypatch.setattr(httpx.Client, "_transport_for_url", lambda _client, _url: httpx.MockTransport(handle))
    with Client(_HERE) as client, pytest.raises(HemostatError) as caught:
        client.submit({"kind": "compare"})
    assert "did not answer within 60 s, and may still do what it was asked" in caught.value.detail
    assert caught.value.hint == "`hemostat jobs list` shows the jobs that it has taken"
    with Client(_HERE, own=True) as client, pytest.raises(HemostatError) as caught:
        client.submit({"kind": "compare"})
    assert caught.value.hint == "`hemostat up`, then `hemostat jobs list` shows the jobs that it has taken"
    assert "no service" not in caught.value.detail
    with Client(_HERE) as client, pytest.raises(HemostatError) as caught:
        client.call("POST", "/v1/deployments", json={})
    assert "deploy list" in caught.value.hint
    with Client(_HERE) as client, pytest.raises(HemostatError) as caught:
        client.job("a")
    assert caught.value.detail.endswith("did not answer within 60 s")
    assert "ask again" in caught.value.hint


class _Plain(httpx.SyncByteStream):
    def __iter__(self):
        yield b"no archive"


@pytest.mark.parametrize("ask", _ASKED)
def test_what_is_not_packed_as_it_says_is_not_a_service_s(ask, monkeypatch):
    def handle(request):
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=_Plain(), request=request)

    monkeypatch.setattr(httpx.Client, "_transport_for_url", lambda _client, _url: httpx.MockTransport(handle))
    with Client(_HERE) as client, pytest.raises(HemostatError) as caught:
        ask(client)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert "is another program listening there?" in caught.value.hint


@pytest.mark.parametrize(
    "ask", [*_ASKED, lambda client: client.report_html("a"), lambda client: next(client.watch("a"))]
)
@pytest.mark.parametrize("status", [301, 404, 0])
def test_a_password_in_the_address_is_not_shown(ask, status, monkeypatch):
    monkeypatch.setattr("app.cli.client._PATIENCE_S", 0.0)
    if status:
        answering(monkeypatch, status, "", location="https://elsewhere.example/")
    with Client("http://me:secret@127.0.0.1:1") as client, pytest.raises(HemostatError) as caught:
        ask(client)
    assert "…@127.0.0.1:1" in caught.value.detail
    assert "secret" not in f"{caught.value.detail} {caught.value.hint} {caught.value.__cause__}"


def test_nor_is_one_in_what_is_no_address():
    with pytest.raises(HemostatError) as caught:
        Client("http://me:secret@host:port")
    assert "secret" not in f"{caught.value.detail} {caught.value.hint}"
