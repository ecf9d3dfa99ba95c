"""What is sent to a replica: its own secret, and nothing of another one's. A real server that asks for it."""

import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from app.contracts.deployment import Replica
from app.deployments.secret import admits
from app.gateway.upstream import DoorSilentError, ReplicaLostError, Upstream
from app.settings import Settings

SECRET = "the secret of this replica"


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": [{"id": "served"}], "nonfinite": True, "reason": "logits were not finite"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.answer({"tokens": [1]})

        def answer(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200 if admits(SECRET, self.headers.get("authorization", "")) else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream(Settings())
    yield made
    await made.close()


async def test_every_question_carries_the_replicas_secret(upstream: Upstream, url: str) -> None:
    replica = Replica(id="serve-0", url=url, engine_url=url, secret=SECRET)
    assert await upstream.served_name(replica) == "served"
    assert await upstream.call(replica, "/tokenize", {"prompt": "a"}) == (200, b'{"tokens": [1]}')
    assert await upstream.why_ended(replica, "one") == "logits were not finite"


@pytest.mark.parametrize("secret", ["", "of the process that had this port before"])
async def test_a_replica_that_does_not_know_us_counts_as_lost(upstream: Upstream, url: str, secret: str) -> None:
    """So another one is asked, and the list of replicas is read again: it may have been started anew."""
    replica = Replica(id="serve-0", url=url, engine_url=url, secret=secret)
    with pytest.raises(ReplicaLostError):
        await upstream.served_name(replica)
    with pytest.raises(ReplicaLostError, match="another secret"):
        await upstream.call(replica, "/tokenize", {"prompt": "a"})
    with pytest.raises(DoorSilentError):
        await upstream.why_ended(replica, "one")
