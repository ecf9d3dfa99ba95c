"""Every operation of the OpenAPI document gets requests that are nearly right: no 500, nothing undescribed, none late.

What fails names its seed; HEMOSTAT_FUZZ_SEED repeats it.
"""

import contextlib
import copy
import itertools
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.integration.app.conftest import Server, compare

JSON: Final = "application/json"
# Of an answer that hangs; a busy machine takes seconds.
LATE_S: Final = 60.0
PROBES: Final[tuple[Any, ...]] = (None, True, -1, 10**400, "", "\ud800", [], {}, [[]], [{}])
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2, 7, 0.5, 1e308, -1e308, 10**30, 10**400, 2**63, "", "a", "tiny", "\0", "\ud800"),
    *("x" * 5000, "../..", "é😀", "diag_", [], [[]], [0] * 300, [None], {}, {"a": {}}, {"sweep": [0.1, 0.2]}),
    *({"sweep": {"from": 0, "to": 1, "points": 3}}, {"source": "inline", "documents": [{"id": "a", "text": "b"}]}),
)
WORDS: Final = (
    *("", "0", "-1", "1", "100", "99999999999999999999", "a", "html", "true", "k=v", "queued", "\0", "é", "..%2f"),
    "x" * 300,
)
HEADERS: Final = {
    "accept": ("*/*", "text/html", "application/json;q=0", "text/event-stream", "a/b", ";", "application/*;q=x"),
    "last-event-id": ("0", "1", "-1", "99999999999999999999", "x"),
    "idempotency-key": ("a", "b", "x" * 300, "\xe9"),
    "if-none-match": ("*", '"a"', "W/"),
    "content-type": ("application/json", "application/json; charset=latin-1", "text/plain", ""),
    "origin": ("http://localhost", "http://example.com", "null", "http://["),
    "range": ("bytes=0-", "x"),
}


class Fuzz:
    """Requests by one seed, over a service that has a job and a deployment."""

    def __init__(self, http: httpx.Client, seed: int) -> None:
        self.http = http
        self.seed, self.draw = seed, random.Random(seed)
        self.page: dict[str, Any] = self.http.get("/openapi.json").json()
        model = {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4}]}
        self.serves = {"name": "d", "model": model, "reference": {"model": "tiny"}}
        self.operations = [
            (method, path, operation)
            for path, methods in self.page["paths"].items()
            for method, operation in methods.items()
        ]

    def go_on(self, seconds: float, most: int) -> int:
        """How many requests were sent."""
        began = time.monotonic()
        sent = 0
        while sent < most and time.monotonic() - began < seconds:
            self._stock()
            self.draw.shuffle(self.operations)
            for operation in self.operations:
                self.once(*operation)
            sent += len(self.operations)
        return sent

    def _stock(self) -> None:
        """A job and a deployment, since those before may be gone."""
        self.job = self.http.post("/v1/diagnosis/jobs", json=compare()).json()["id"]
        self.http.post("/v1/deployments", json=self.serves)

    def go_through(self) -> int:
        """Every field of every example with a value of each type; how many requests were sent."""
        self._stock()
        sent = 0
        for method, path, operation in self.operations:
            for example in self._examples(path, operation):
                for name, value in itertools.product(example, PROBES):
                    body = json.dumps(example | {name: value}).encode()
                    at = re.sub(r"{\w+}", "d", path)
                    request = self.http.build_request(method, at, content=body, headers={"content-type": JSON})
                    self._send(request, path, operation)
                    sent += 1
        return sent

    def once(self, method: str, path: str, operation: dict[str, Any]) -> None:
        """One request, and its answer."""
        request = self.http.build_request(
            method,
            re.sub(r"{(\w+)}", lambda name: self._part(name[1]), path),
            params=self._query(operation),
            headers=self._headers(),
            content=self._content(path, operation),
        )
        self._send(request, path, operation)

    def _send(self, request: httpx.Request, path: str, operation: dict[str, Any]) -> None:
        began = time.monotonic()
        answer = self.http.send(request, stream=True)
        streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
        body = b"" if streamed else answer.read()
        late = time.monotonic() - began
        answer.close()
        sent = f"{request.method} {request.url!r} {dict(request.headers)!r} {request.content[:3000]!r}"
        told = f"seed {self.seed}: {sent}: {answer.status_code} {body[:1000]!r}"
        assert late < LATE_S, told
        assert answer.status_code != 500, told
        if not (answer.status_code in (404, 405) and request.url.path.count("/") != path.count("/")):
            self._described(operation, answer, body, told)

    def _described(self, operation: dict[str, Any], answer: httpx.Response, body: bytes, told: str) -> None:
        declared = operation["responses"].get(str(answer.status_code))
        assert declared is not None, told
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if not body:
            return
        assert kind in declared.get("content", {}), told
        if kind.endswith("json"):
            schema = declared["content"][kind].get("schema", {}) | {"components": self.page["components"]}
            faults = [fault.message[:300] for fault in Draft202012Validator(schema).iter_errors(json.loads(body))]
            assert not faults, (told, faults)

    def _part(self, name: str) -> str:
        known = {"job_id": self.job, "deployment": "d", "model": "d", "code": "internal", "name": "report.json"}
        given = known.get(name, "cal-0123456789abcdef") if self.draw.random() < 0.7 else self.draw.choice(WORDS)
        return quote(given, safe="")

    def _query(self, operation: dict[str, Any]) -> list[tuple[str, str]]:
        names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"] + ["x"]
        chosen = self.draw.choices(names, k=self.draw.choice((0, 0, 0, 1, 2, 3)))
        return [(name, self.draw.choice(WORDS)) for name in chosen]

    def _headers(self) -> list[tuple[str, bytes]]:
        chosen = self.draw.sample(sorted(HEADERS), self.draw.randrange(3)) if self.draw.random() < 0.4 else []
        given = [(name, self.draw.choice(HEADERS[name]).encode("latin-1")) for name in chosen]
        return given if "content-type" in chosen else [*given, ("content-type", b"application/json")]

    def _content(self, path: str, operation: dict[str, Any]) -> bytes:
        if "requestBody" not in operation:
            return b"" if self.draw.random() < 0.9 else b"{}"
        body = copy.deepcopy(self.draw.choice(self._examples(path, operation)))
        for _ in range(self.draw.randrange(4)):
            self._change(body)
        raw = json.dumps(body).encode()
        if self.draw.random() < 0.1:
            cut = self.draw.randrange(len(raw))
            raw = raw[:cut] + self.draw.choice((b"", b"\xff", b"NaN", b"1e999", b'"', b"\\", b"[[")) + raw[cut:]
        return raw

    def _examples(self, path: str, operation: dict[str, Any]) -> list[dict[str, Any]]:
        """Those of the document, of a model and a deployment that there are, and what is known to be taken."""
        if "requestBody" not in operation:
            return []
        media = operation["requestBody"]["content"][JSON]
        found = [one["value"] for one in media.get("examples", {}).values()] or [media["example"]]
        found = json.loads(json.dumps(found).replace("smollm2-135m", "tiny").replace("smollm2-w4", "d"))
        if path == "/v1/diagnosis/jobs":  # the model has a short context
            return [example | {"window": 64} for example in found] + [compare()]
        return [*found, self.serves] if path == "/v1/deployments" else found

    def _change(self, body: Any) -> None:
        """Another value, one less, or one more, at any place."""
        places = list(_places(body))
        holder, key = self.draw.choice(places) if places else (body, "a")
        kind = self.draw.randrange(4)
        if kind == 0:
            with contextlib.suppress(KeyError, IndexError):
                del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            name = self.draw.choice(("a", "\0", f"{key}s", "kind", "x" * 1000))
            holder[name] = copy.deepcopy(self.draw.choice(VALUES))
        elif kind == 2 and places:
            other, name = self.draw.choice(places)
            holder[key] = copy.deepcopy(other[name])
        else:
            holder[key] = copy.deepcopy(self.draw.choice(VALUES))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield value, key
        yield from _places(one)


@pytest.fixture
def fuzz(server: Server) -> Iterator[Callable[[int], Fuzz]]:
    server.start(HEMOSTAT_REQUESTS_PER_MINUTE="1000000", HEMOSTAT_MAX_QUEUED_JOBS="100000")
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield lambda seed: Fuzz(http, seed)


def test_requests_that_are_nearly_right(fuzz: Callable[[int], Fuzz]) -> None:
    service = fuzz(1)
    assert service.go_through() > 500
    assert service.go_on(20, 2000) > 200


@pytest.mark.timeout(1200)
def test_other_requests_that_are_nearly_right(fuzz: Callable[[int], Fuzz]) -> None:
    seed = int(os.environ.get("HEMOSTAT_FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    assert fuzz(seed).go_on(600, 100_000) > 2000
