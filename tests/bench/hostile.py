"""What hostile bodies, connections and models cost the API: seconds, MB and how long /livez waits, for hostile.csv.

python -m tests.bench.hostile [--show] [CASE ...]
"""

import argparse
import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from app.jobs.embedded import EmbeddedValkey
from app.settings import Settings
from tests.support.bodies import HOSTILE, honest
from tests.support.hostile import Watch, append
from tests.support.hostile_models import HOSTILE_MODELS
from tests.support.ports import free_port
from tests.support.tiny import make_checkpoint

JOBS: Final = "/v1/diagnosis/jobs"
CHAT: Final = "/v1/chat/completions"
FULL: Final = 32 * 1024 * 1024
GATEWAY: Final = 4 * 1024 * 1024


@contextlib.contextmanager
def running() -> Iterator[tuple[int, int]]:
    """A front end as a process, over a Valkey of its own: (pid, port)."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        settings = Settings(home=Path(folder) / "home")
        settings.home.mkdir()
        folders = {"tiny": make_checkpoint(Path(folder) / "tiny", "llama")}
        for alias, (change, _) in HOSTILE_MODELS.items():
            folders[alias] = Path(shutil.copytree(folders["tiny"], Path(folder) / alias))
            change(folders[alias])
        settings.models_file.write_text("".join(f'[models.{one}]\npath = "{path}"\n' for one, path in folders.items()))
        valkey = EmbeddedValkey(settings)
        valkey.start()
        stack.callback(valkey.stop)
        port = free_port()
        given = {"HOME": str(settings.home), "REDIS_URL": valkey.url, "PORT": str(port)}
        environment = os.environ | {f"HEMOSTAT_{name}": value for name, value in given.items()}
        process = subprocess.Popen([sys.executable, "-m", "app.main"], env=environment)
        stack.callback(process.wait)
        stack.callback(process.kill)
        while True:
            with contextlib.suppress(OSError):
                post(port, "/livez", b"", method="GET")
                break
            time.sleep(0.1)
        yield process.pid, port


def post(port: int, path: str, body: bytes, method: str = "POST") -> int:
    """The answer's status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body or None, {"content-type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status


def endless_header(port: int) -> None:
    """One header that never ends, until the service has had enough."""
    with socket.create_connection(("127.0.0.1", port)) as one, contextlib.suppress(OSError):
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        for _ in range(100_000):
            one.sendall(b"a" * 1024)


def many_headers(port: int) -> None:
    """10,000 headers."""
    with socket.create_connection(("127.0.0.1", port)) as one, contextlib.suppress(OSError):
        lines = b"".join(b"X-%d: a\r\n" % number for number in range(10_000))
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")
        while one.recv(65_536):
            pass


def slow_body(port: int) -> None:
    """One byte a second, until the service has had enough."""
    with socket.create_connection(("127.0.0.1", port)) as one, contextlib.suppress(OSError):
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
        one.sendall(head % JOBS.encode())
        one.settimeout(1)
        for _ in range(600):
            one.sendall(b"a")
            with contextlib.suppress(TimeoutError):
                if one.recv(4096):
                    return


def idle_sockets(port: int) -> None:
    """2,000 connections that say nothing, for as long as the service bears them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(2000)]
    for one in held:
        with contextlib.suppress(OSError):
            one.recv(1)
        one.close()


CONNECTIONS: Final[dict[str, Callable[[int], None]]] = {
    "endless header": endless_header,
    "10,000 headers": many_headers,
    "slow body": slow_body,
    "2,000 idle sockets": idle_sockets,
}


def main() -> None:
    """Measures each case on a service that has answered before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="some of them")
    parser.add_argument("--show", action="store_true", help="print, and keep nothing")
    options = parser.parse_args()
    cases: dict[str, Callable[[], Callable[[int], object]]] = {}
    for name, make in HOSTILE.items():
        cases[f"job: {name}"] = lambda make=make: partial(post, path=JOBS, body=make(FULL))
        cases[f"chat: {name}"] = lambda make=make: partial(post, path=CHAT, body=make(GATEWAY))
    cases["job: honest text of 31 MiB"] = lambda: partial(post, path=JOBS, body=honest(31 * 1024 * 1024))
    for name in HOSTILE_MODELS:
        asked = {
            "kind": "compare",
            "reference": {"model": "tiny"},
            "candidate": {"model": name},
            "dry_run": True,
            "window": 64,
        }
        cases[f"model: {name}"] = lambda asked=asked: partial(post, path=JOBS, body=json.dumps(asked).encode())
    cases |= {name: lambda attack=attack: attack for name, attack in CONNECTIONS.items()}
    with running() as (pid, port):
        post(port, JOBS, b'{"kind": []}')
        for name, prepare in cases.items():
            if options.cases and not any(part in name for part in options.cases):
                continue
            attack = prepare()
            with Watch(pid, port) as watch:
                answer = attack(port)
            rows = watch.rows(name)
            figures = ", ".join(f"{metric} {value:g} {unit}" for _, _, metric, value, unit in rows)
            sys.stdout.write(f"{name}: {answer}, {figures}\n")
            sys.stdout.flush()
            if not options.show:
                append(rows)


if __name__ == "__main__":
    main()
