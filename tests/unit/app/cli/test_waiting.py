import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console

from app.cli.client import Client
from app.cli.watching import require_success, run_to_end
from app.contracts.errors import ErrorCode, HemostatError


def job(number, status, phase="queued", done=0, total=0):
    progress = {"phase": phase, "done": done, "total": total}
    return {"id": f"diag_{number}", "kind": "calibrate", "status": status, "progress": progress}


def test_a_queued_job_says_its_id_its_turn_and_that_the_service_went_away(monkeypatch):
    """The first connection of events breaks off, the next is refused, the third tells the end."""
    slept: list[float] = []
    monkeypatch.setattr("app.cli.client.time.sleep", slept.append)
    output = io.StringIO()
    connections: list[int] = []

    def event(name, data):
        return f"id: {len(connections)}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.endswith("/events"):
                self._events()
            elif self.path.endswith("/queue"):
                self._json({"status": "queued", "before": 1})
            else:
                self._json(job(2, "succeeded" if len(connections) > 2 else "queued"))

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self._json(job(2, "queued"))

        def _events(self):
            connections.append(1)
            if len(connections) == 2:
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            if len(connections) == 1:
                self.wfile.write(event("state", {"status": "queued", "attempt": 0}))
                self.wfile.flush()
                return
            self.wfile.write(event("state", {"status": "running", "attempt": 1}))
            for phase in ("text", "text", "fit"):
                self.wfile.write(event("progress", {"progress": {"phase": phase, "done": 1, "total": 2}}))
            self.wfile.write(event("end", {"status": "succeeded"}))

        def _json(self, value):
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            run_to_end(client, {}, Console(file=output, force_terminal=False, width=200))
        server.shutdown()
        thread.join()
    assert len(slept) == 2, "it does not hasten back after either"
    assert output.getvalue().splitlines() == [
        "job diag_2",
        "queued: 1 job before it",
        "the service does not answer; trying again",
        "the service answers again",
        "reading the text …",
        "fitting the calibrators …",
    ]


def test_who_leaves_when_no_service_answers_is_told_that_the_job_is_still_there(monkeypatch):
    class Gone(Client):
        def submit(self, request):
            return job(7, "queued")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.watching.follow", interrupted)
    with Gone("http://127.0.0.1:9") as client, pytest.raises(HemostatError) as caught:  # the discard port: nobody
        run_to_end(client, {}, Console(file=io.StringIO()))
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert "hemostat jobs cancel diag_7" in caught.value.hint


def test_who_wants_a_job_that_has_no_report_is_told_to_wait_or_to_ask_again():
    for status, hint in (("queued", "jobs watch diag_1"), ("running", "jobs watch diag_1"), ("cancelled", "again")):
        with pytest.raises(HemostatError, match=status) as caught:
            require_success(job(1, status))
        assert hint in caught.value.hint
