"""The server process of a replica, seen from the process that holds its lease."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from workers.engine.serving.steps import limit_s

_TAIL: Final = 200
_POLL_S: Final = 0.25
_WARM_UP: Final = (8, 1)  # tokens of a prompt
_TERMINATE_S: Final = 10.0
_ERROR: Final = re.compile(r"(?:^|\s)((?:[A-Za-z_.]*(?:Error|Exception))(?:: .*)?)$")
_RUNNING: Final = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


class ServerEndedError(RuntimeError):
    """The server process is gone; the text says why, as far as it told."""


class HeldPort:
    """A TCP port of `host` that is kept for a process that binds it later; `release` it once that one listens.

    The socket here is bound and never listens. The kernel gives its port to no one who asks for any port. Who asks for
    this one gets it with SO_REUSEADDR alone, as servers do (uvicorn, asyncio, vLLM). Those may bind and listen beside
    it, since it does not listen itself.
    """

    def __init__(self, host: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number = int(self._socket.getsockname()[1])

    def release(self) -> None:
        """Gives it up."""
        self._socket.close()


class ServerProcess:
    """A running server and what it has started: a process group that ends whole.

    What it writes goes on to our standard error. Until it is healthy the last lines are kept to say why it fails;
    afterwards nothing is.
    """

    def __init__(self, process: asyncio.subprocess.Process, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._healthy = False
        self._reading = asyncio.create_task(self._read(), name="server output")
        self._client = httpx.AsyncClient(timeout=5.0, trust_env=False, headers=headers)

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        url: str,
        headers: Mapping[str, str] | None = None,
    ) -> ServerProcess:
        """Starts it; it is not ready yet. `headers` go with what it, and its door, is asked."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process, url, headers or {})

    @property
    def pid(self) -> int:
        """Of the process that serves HTTP; also of the group."""
        return self._process.pid

    async def until_healthy(self, model: str) -> None:
        """Returns when it has answered a prompt of a few tokens of `model`, and one of a single token. One that has
        computed nothing may die of its first prompt: not of a client's. Raises `ServerEndedError`. However long it
        takes: large weights load long.
        """
        while True:
            if self._process.returncode is not None:
                await self._reading
                raise ServerEndedError(self._why())
            with contextlib.suppress(httpx.HTTPError):
                if (await self._client.get(f"{self.url}/health")).status_code == httpx.codes.OK:
                    for tokens in _WARM_UP:
                        await self._complete(model, tokens)
                    self._healthy = True
                    self._tail.clear()
                    return
            await asyncio.sleep(_POLL_S)

    async def _complete(self, model: str, tokens: int) -> None:
        body = {"model": model, "prompt": [0] * tokens, "max_tokens": 2}
        try:
            answer = await self._client.post(f"{self.url}/v1/completions", json=body, timeout=limit_s())
        except httpx.TimeoutException as error:
            raise ServerEndedError(f"no answer to a first prompt of {tokens} tokens within {limit_s()} s") from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ServerEndedError(f"a first prompt of {tokens} tokens got the status {answer.status_code}")

    async def until_ended(self) -> str:
        """Waits until it ends, and says how."""
        await self._process.wait()
        await self._reading
        return self._why()

    async def unhealthy(self) -> bool:
        """Whether it says that its engine is dead. No answer in time is none: it may be busy."""
        try:
            return (await self._client.get(f"{self.url}/health")).status_code == httpx.codes.SERVICE_UNAVAILABLE
        except httpx.HTTPError:
            return False

    async def requests(self) -> int | None:
        """How many run or wait in it; None if it does not say."""
        try:
            text = (await self._client.get(f"{self.url}/metrics")).text
        except httpx.HTTPError:
            return None
        counts = _RUNNING.findall(text)
        return int(sum(float(count) for count in counts)) if counts else None

    async def get_json(self, url: str) -> dict[str, object] | None:
        """A small answer of a door; None if there is none."""
        try:
            body = (await self._client.get(url)).json()
        except (httpx.HTTPError, ValueError):
            return None
        return body if isinstance(body, dict) else None

    async def end(self) -> None:
        """SIGTERM, and after ten seconds SIGKILL to whatever is left of its group."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _TERMINATE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading
        await self._client.aclose()

    def _why(self) -> str:
        code = self._process.returncode
        ended = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
        told = [match[1] for line in self._tail if (match := _ERROR.search(line))]
        # The last ones only say that others failed: the first shows why.
        return f"the server ended with {ended}" + (f": {told[0][:500]}" if told else "")

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        while chunk := await self._process.stdout.read(65536):
            text = chunk.decode(errors="replace")
            sys.stderr.write(text)
            sys.stderr.flush()
            if not self._healthy:
                self._tail.extend(text.splitlines())


def read_port(file: Path) -> int | None:
    """The port that an engine process wrote; None if it has not yet."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
