"""The audit log: one JSON object per line for each change that was asked for and made. It holds no text of requests.

`at`, `owner`, `key` (its id), `action` (method and route), `object`, `address`, `request_id`. Without API keys `owner`
is empty; for `hemostat keys` it is `uid:` and the number of the user of this machine.
"""

import fcntl
import json
import logging
import os
import time
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.security.keys import written_time
from app.security.scopes import KEY

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 16 * 1024 * 1024  # of a file, before the next one is begun
KEPT: Final = 9  # files beside the one that is written
_UNCHANGED: Final = "hemostat.unchanged"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def audit_file(home: Path) -> Path:
    """Where the log is; older parts beside it end with .1, .2, …"""
    return home / "audit" / "audit.jsonl"


def record(home: Path, **fields: str) -> None:
    """Adds a line. Several processes may write. A disk that takes no line is reported in the service's own log."""
    line = json.dumps({"at": written_time(time.time()), **fields}) + "\n"
    file = audit_file(home)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size + len(line) > MAX_BYTES:
            _rotate(file)
        written = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(written, "a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        logger.error("a change is missing in %s: %s: %s", file, error.strerror, line.strip())  # noqa: TRY400


def _rotate(file: Path) -> None:
    """No one waits for a lock here, it is the API's event loop: who finds it taken writes to the file that there is."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if file.exists() and file.stat().st_size > MAX_BYTES // 2:  # not begun again meanwhile
            _move_on(file)
    except BlockingIOError:
        pass
    finally:
        os.close(folder)


def _move_on(file: Path) -> None:
    for number in range(KEPT - 1, 0, -1):
        older = Path(f"{file}.{number}")
        if older.exists():
            older.replace(f"{file}.{number + 1}")
    file.replace(f"{file}.1")


def unchanged_by(request: Request) -> None:
    """Call it in a route whose request changed nothing, though it went well: it is not recorded."""
    request.scope[_UNCHANGED] = True


class Audit:
    """Records each request that changed something: one that does not read, went well and has an object, which is in
    its path or is the `Location` of what it made."""

    def __init__(self, app: ASGIApp, *, home: Path) -> None:
        self.app = app
        self.home = home

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on; writes before the client learns that it went well."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self.app(scope, receive, send)
            return

        async def recorded(message: Message) -> None:
            well = message["type"] == "http.response.start" and message["status"] < 400
            if well and _UNCHANGED not in scope:
                made = Headers(raw=message["headers"]).get("location", "").rpartition("/")[2]
                named = made or "/".join(scope.get("path_params", {}).values())
                if named:
                    self._record(scope, named)
            await send(message)

        await self.app(scope, receive, recorded)

    def _record(self, scope: Scope, named: str) -> None:
        record(
            self.home,
            owner=scope[KEY].owner,
            key=scope[KEY].id,
            action=f"{scope['method']} {scope['route'].path}",
            object=named,
            address=(scope.get("client") or ("",))[0],
            request_id=scope["hemostat.request_id"],
        )
