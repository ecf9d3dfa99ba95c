"""The process that reads rows of a data set of the hub; started by `hub`, never imported.

It reads what is wanted from standard input as JSON and writes rows as lines of JSON. It speaks to the hub's host alone,
whatever a data set's card names, stops at a number of bytes, and keeps nothing. Its caches are in a folder that `hub`
removes.
"""

import json
import resource
import socket
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final
from urllib.parse import urlsplit

import datasets
import httpx
import huggingface_hub

HUB: Final = "huggingface.co"
# Where the public hub keeps files: its answers lead there.
FILES: Final = ".hf.co"
MEMORY_BYTES: Final = 8 * 1024**3


class BudgetError(Exception):
    """More bytes than are allowed."""


class Fence:
    """Which hosts this process may speak to."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._addresses: set[tuple[Any, ...]] = set()
        self._resolve = socket.getaddrinfo

    def allows(self, host: str, port: int) -> bool:
        """Whether this is the hub, or for the public hub a host of its files."""
        return (host, port) == (self.host, self.port) or (self.host == HUB and host.endswith(FILES) and port == 443)

    def shut(self) -> None:
        """From now on, for every library of this process."""
        socket.getaddrinfo = self._getaddrinfo
        sys.addaudithook(self._audit)

    def _getaddrinfo(self, host: Any, port: Any, *given: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if not self.allows(name, int(port or 0)):
            raise PermissionError(f"{name} is not the hub")
        found = self._resolve(host, port, *given, **named)
        self._addresses |= {one[4][:2] for one in found}
        return found

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and tuple(arguments[1][:2]) not in self._addresses:
            raise PermissionError("this address is not the hub's")


class Meter(httpx.HTTPTransport):
    """Counts the bytes of all answers."""

    def __init__(self, fence: Fence, budget: int) -> None:
        super().__init__()
        self._fence = fence
        self.left = budget

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As a transport does. Raises PermissionError for another host."""
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        if not self._fence.allows(request.url.host, port):
            raise PermissionError(f"{request.url.host} is not the hub")
        response = super().handle_request(request)
        response.stream = _Counted(response.stream, self)
        return response


class _Counted(httpx.SyncByteStream):
    def __init__(self, stream: Any, meter: Meter) -> None:
        self._stream, self._meter = stream, meter

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._meter.left -= len(piece)
            if self._meter.left < 0:
                raise BudgetError
            yield piece

    def close(self) -> None:
        self._stream.close()


def rows(asked: dict[str, Any]) -> Iterator[Any]:
    """The column names, then the column's values."""
    builder = datasets.load_dataset_builder(
        f"hf://datasets/{asked['dataset']}", name=asked["config"], revision=asked["revision"], token=asked["token"]
    )
    files = builder.config.data_files or {}
    own = f"hf://datasets/{asked['dataset']}@"
    if not all(str(file).startswith(own) for listed in files.values() for file in listed):
        raise PermissionError("a file of another place")
    given = iter(builder.as_streaming_dataset(split=asked["split"]))
    first: dict[str, Any] = next(given, {})
    yield list(first)
    if asked["column"] in first:
        for row in chain([first], given):
            yield row[asked["column"]]


_MISSING: Final = (
    datasets.exceptions.DatasetNotFoundError,
    huggingface_hub.errors.RepositoryNotFoundError,
    huggingface_hub.errors.RevisionNotFoundError,
    ValueError,  # a configuration, a split, or a form of file that the library does not know
    FileNotFoundError,
    RuntimeError,  # a script
)


def fault(error: BaseException) -> str:
    """What an error is to who asked. Messages of libraries stay here: they may name files of this machine."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, BudgetError | PermissionError):
            return "budget" if isinstance(behind, BudgetError) else "elsewhere"
        behind = behind.__cause__ or behind.__context__
    if isinstance(error, huggingface_hub.errors.OfflineModeIsEnabled):
        return "unavailable"
    return "missing" if isinstance(error, _MISSING) else "unavailable"


def main() -> None:
    """Writes `{"columns": […]}`, a line `{"text": …}` for each row, and in the end `{"end": true}` or a fault."""
    asked = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    fence = Fence(huggingface_hub.constants.ENDPOINT)
    fence.shut()
    meter = Meter(fence, asked["budget"])
    huggingface_hub.set_client_factory(
        lambda: httpx.Client(
            transport=meter, follow_redirects=True, timeout=huggingface_hub.constants.DEFAULT_REQUEST_TIMEOUT
        )
    )

    def say(**told: Any) -> None:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()

    try:
        found = rows(asked)
        say(columns=next(found))
        for value in found:
            say(text=value) if isinstance(value, str) else say(other=type(value).__name__)
        say(end=True)
    except Exception as error:
        say(fault=fault(error), why=type(error).__name__)


if __name__ == "__main__":
    main()
