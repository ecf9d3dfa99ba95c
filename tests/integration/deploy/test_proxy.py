"""The proxy of the compose file, Debian's nginx: HTTPS before the API, and streams that pass through as they come."""

import socket
import ssl
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser

from app.settings import Settings
from tests.e2e.conftest import browser
from tests.integration.deploy.stack import ROOT, Stack

__all__ = ["browser"]

JOB = {
    "kind": "compare",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "text": {"source": "shipped"},
}


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """A client that trusts the installation's certificate and no other."""
    trusted = ssl.create_default_context(cafile=str(stack.folder / "secrets" / "tls.crt"))
    key = {"authorization": f"Bearer {stack.secret('api_key')}"}
    address = f"https://localhost:{stack.ports['8443']}"
    with httpx.Client(base_url=address, verify=trusted, headers=key, timeout=60) as made:
        yield made


def test_the_api_is_reached_by_https_with_a_key_and_not_without(client: httpx.Client) -> None:
    assert client.get("/v1/diagnosis/jobs").status_code == 200
    assert client.get("/v1/diagnosis/jobs", headers={"authorization": ""}).status_code == 401


def test_without_tls_nothing_is_answered(stack: Stack) -> None:
    answer = httpx.get(f"http://localhost:{stack.ports['8443']}/livez", timeout=60)
    assert answer.status_code == 400
    assert "HTTPS port" in answer.text


def test_an_event_of_an_open_stream_arrives_at_once(stack: Stack, client: httpx.Client) -> None:
    stack.end("worker")  # the job waits, and its stream stays open
    try:
        job = client.post("/v1/diagnosis/jobs", json=JOB).json()
        with client.stream("GET", f"/v1/diagnosis/jobs/{job['id']}/events", timeout=10) as stream:
            first = next(stream.iter_lines())
        assert first
        assert client.get(f"/v1/diagnosis/jobs/{job['id']}").json()["status"] == "queued"
        assert client.post(f"/v1/diagnosis/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    finally:
        stack.start("worker")


def test_the_largest_body_passes_and_a_larger_one_does_not(client: httpx.Client) -> None:
    limit = int(Settings.model_fields["max_body_bytes"].default)
    assert f"client_max_body_size {limit // 2**20}m;" in (ROOT / "deploy" / "proxy" / "nginx.conf").read_text()
    json = {"content-type": "application/json"}
    taken = client.post("/v1/diagnosis/jobs", content=b'"' + b"a" * (limit - 2) + b'"', headers=json)
    assert taken.headers["content-type"] == "application/problem+json"
    assert taken.status_code == 422
    assert client.post("/v1/diagnosis/jobs", content=b"a" * (limit + 1), headers=json).status_code == 413


def test_a_body_without_a_key_is_refused_before_it_is_there(stack: Stack, client: httpx.Client) -> None:
    """The proxy keeps no body: its /tmp is memory, and it does not know the keys."""
    trusted = ssl.create_default_context(cafile=str(stack.folder / "secrets" / "tls.crt"))
    head = f"POST /v1/diagnosis/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: {31 * 2**20}\r\n"
    with (
        socket.create_connection(("localhost", int(stack.ports["8443"])), timeout=20) as plain,
        trusted.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + b"a" * 2**20)
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")
    whole = {"authorization": "", "content-type": "application/json"}
    assert client.post("/v1/diagnosis/jobs", content=b"a" * 31 * 2**20, headers=whole).status_code == 401


def test_a_person_opens_pages_with_the_key_as_password_and_a_foreign_page_changes_nothing(
    stack: Stack, client: httpx.Client, browser: Browser
) -> None:
    jobs = f"{client.base_url}/v1/diagnosis/jobs"
    signed_in = {"username": "", "password": stack.secret("api_key")}
    context = browser.new_context(http_credentials=signed_in, ignore_https_errors=True)
    try:
        page = context.new_page()
        opened = page.goto(str(client.base_url))
        assert opened is not None
        assert opened.ok
        assert "text/html" in opened.headers["content-type"]
        before = client.get(jobs).json()
        page.goto("about:blank")
        page.set_content(f'<form method="post" enctype="text/plain" action="{jobs}"><input name="a"></form>')
        with page.expect_response(jobs) as answered:
            page.evaluate("document.forms[0].submit()")
        assert answered.value.status == 401
        assert client.get(jobs).json() == before
    finally:
        context.close()
