"""What the client of the command line sends, and what it makes of answers that are not a service's."""

import json

import httpx
import pytest

from app.cli.client import Client
from app.contracts.errors import ErrorCode, HemostatError

_HERE = "http://127.0.0.1:1"


@pytest.fixture
def service(monkeypatch):
    """`service(answer)`: what is asked is answered by `answer(request)`; returns the requests."""

    def answered(answer):
        asked = []

        def handle(request):
            asked.append(request)
            return answer(request)

        monkeypatch.setattr("app.cli.client._PATIENCE_S", 0.0)
        monkeypatch.setattr(httpx.Client, "_transport_for_url", lambda *_: httpx.MockTransport(handle))
        return asked

    return answered


def refused(ask, url=_HERE, **options):
    with pytest.raises(HemostatError) as caught, Client(url, **options) as client:
        ask(client)
    return caught.value


def told(error):
    return f"{error.detail} {error.hint} {error.__cause__}"


@pytest.mark.parametrize("text", ["Сколько это будет? 你好 ", "half a pair: \ud83d"])
def test_a_request_is_sent_in_the_fewest_bytes_and_comes_back_as_it_was(text, service):
    asked = service(lambda request: httpx.Response(202, json={"id": "1"}))
    whole = {"documents": [{"id": "1", "text": text * 100}]}
    with Client(_HERE) as client:
        client.submit(whole)
    sent = asked[-1].content
    assert json.loads(sent) == whole
    if text.isprintable():
        assert len(sent) <= len((text * 100).encode()) + 100


def test_a_path_is_no_jobs_id_and_no_other_route_is_asked_for():
    for ask in (Client.job, Client.report, Client.artifacts, Client.cancel):
        error = refused(lambda client, ask=ask: ask(client, "no/such"))
        assert error.code is ErrorCode.JOB_NOT_FOUND
        assert "'no/such'" in error.detail


_ASKED = [
    lambda client: client.jobs(),
    lambda client: client.submit({"kind": "compare"}),
    lambda client: client.call("GET", "/v1/deployments"),
    lambda client: client.require_service(),
]
_LED = [*_ASKED, lambda client: client.report_html("a"), lambda client: next(client.watch("a"))]


class _Plain(httpx.SyncByteStream):
    def __iter__(self):
        yield b"no archive"


def test_another_program_is_told_as_such(service):
    service(lambda _: httpx.Response(404, text="<html>not here</html>"))
    errors = [refused(ask) for ask in _ASKED]
    service(lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=_Plain()))
    errors += [refused(ask) for ask in _ASKED]
    for body in ("<html>hello</html>", "[]", ""):
        service(lambda _, body=body: httpx.Response(200, text=body))
        errors.append(refused(Client.jobs))
    assert {error.code for error in errors} == {ErrorCode.UNAVAILABLE}


def test_a_redirection_is_told_with_where_it_leads_and_not_followed(service):
    service(lambda _: httpx.Response(301, headers={"location": "https://elsewhere.example/"}))
    for ask in _LED:
        said = told(refused(ask, api_key="secret"))
        assert "https://elsewhere.example/" in said
        assert "secret" not in said


def test_a_password_in_the_address_is_not_shown(service):
    for url in ("http://host:port", "ftp://host", "http://", "http://me:secret@host:port"):
        error = refused(Client.jobs, url)
        assert error.code is ErrorCode.INVALID_REQUEST
        assert "secret" not in told(error)
    for status in (301, 404):
        service(lambda _, status=status: httpx.Response(status, headers={"location": "https://elsewhere.example/"}))
        for ask in _LED:
            error = refused(ask, "http://me:secret@127.0.0.1:1")
            assert "…@127.0.0.1:1" in error.detail
            assert "secret" not in told(error)


@pytest.mark.parametrize(("key", "header"), [("abc\n", "Bearer abc"), ("abc", "Bearer abc"), (" ", None), (None, None)])
def test_a_key_is_sent_without_the_blanks_around_it(key, header, service):
    asked = service(lambda _: httpx.Response(200, json={"data": []}))
    with Client(_HERE, api_key=key) as client:
        client.jobs()
    assert [request.headers.get("Authorization") for request in asked] == [header]


def test_what_can_be_no_key_is_refused_without_being_shown():
    for key in ("schlüssel", "two\nlines"):
        error = refused(Client.jobs, api_key=key)
        assert "HEMOSTAT_API_KEY" in error.detail
        assert key.splitlines()[0] not in told(error)


@pytest.mark.parametrize("late", [httpx.ReadTimeout("slow"), httpx.WriteTimeout("slow")])
def test_a_service_that_is_slow_is_not_told_as_none(late, service):
    def slow(_):
        raise late

    service(slow)
    for ask, own, hint in (
        (lambda client: client.submit({"kind": "compare"}), False, "`hemostat jobs list`"),
        (lambda client: client.submit({"kind": "compare"}), True, "`hemostat up`, then `hemostat jobs list`"),
        (lambda client: client.call("POST", "/v1/deployments", json={}), False, "deploy list"),
        (lambda client: client.job("a"), False, "ask again"),
    ):
        error = refused(ask, own=own)
        assert "60 s" in error.detail
        assert "no service" not in error.detail
        assert hint in error.hint
