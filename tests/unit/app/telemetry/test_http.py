import logging
import re

import httpx
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import StreamingResponse

from app.telemetry.http import RequestContext
from app.telemetry.metrics import Telemetry


def make():
    telemetry = Telemetry()
    app = FastAPI(middleware=[Middleware(RequestContext, telemetry=telemetry)])

    @app.get("/items/{item}")
    async def item(item: str) -> str:
        return item

    @app.get("/broken")
    async def broken(text: str) -> None:
        raise RuntimeError(text)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"data: 1\n\n"]), media_type="text/event-stream")

    return telemetry, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


def value(telemetry, name, **labels):
    return telemetry.registry.get_sample_value(name, labels)


async def test_requests_are_counted_by_route_template():
    telemetry, http = make()
    async with http:
        for name in ("a", "b", "c%2Fd"):
            await http.get(f"/items/{name}")
    assert value(telemetry, "hemostat_http_requests_total", route="/items/{item}", method="GET", status="200") == 2
    assert value(telemetry, "hemostat_http_requests_total", route="unmatched", method="GET", status="404") == 1
    assert value(telemetry, "hemostat_http_request_duration_seconds_count", route="/items/{item}", method="GET") == 2
    assert value(telemetry, "hemostat_http_in_flight_requests") == 0


async def test_no_text_of_a_client_becomes_a_label_or_a_log_line(caplog):
    telemetry, http = make()
    with caplog.at_level(logging.INFO):
        async with http:
            await http.get("/items/my-secret?q=my-secret", headers={"x-request-id": "my secret"})
            await http.request("MYSECRET", "/items/x")
            await http.get("/my-secret")
    assert "secret" not in telemetry.render().decode().casefold()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("hemostat")]
    assert len(ours) == 3
    assert "secret" not in "".join(ours).casefold()
    assert value(telemetry, "hemostat_http_requests_total", route="/items/{item}", method="other", status="405") == 1


async def test_a_well_formed_request_id_is_kept_and_any_other_replaced():
    _, http = make()
    async with http:
        assert (await http.get("/items/a", headers={"x-request-id": "build-7.a_B"})).headers[
            "x-request-id"
        ] == "build-7.a_B"
        for bad in ("", "a b", "x" * 129, "é", "a\tb", '"'):
            got = (await http.get("/items/a", headers={"x-request-id": bad.encode()})).headers["x-request-id"]
            assert re.fullmatch(r"[0-9a-f]{32}", got)


async def test_an_unexpected_exception_is_a_500_that_tells_nothing_but_its_id(caplog):
    telemetry, http = make()
    async with http:
        answer = await http.get("/broken?text=hunter2", headers={"x-request-id": "abc"})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["request_id"]) == (500, "internal", "abc")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    assert "request abc failed" in caplog.text
    assert "in broken" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text, "a message may quote what a client sent"
    assert value(telemetry, "hemostat_http_requests_total", route="/broken", method="GET", status="500") == 1


async def test_streams_are_counted_but_leave_the_latency_alone():
    telemetry, http = make()
    async with http:
        await http.get("/stream")
    assert value(telemetry, "hemostat_http_requests_total", route="/stream", method="GET", status="200") == 1
    assert value(telemetry, "hemostat_http_request_duration_seconds_count", route="/stream", method="GET") is None


async def test_answers_are_not_cached_or_sniffed_unless_they_say_so():
    _, http = make()
    async with http:
        headers = (await http.get("/items/a")).headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
