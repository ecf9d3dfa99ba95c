"""The secret between the gateway and a serving or verifying process that other machines can reach.

The process draws one when it starts, and stores it with its lease in Redis, which only the service may read. It ends
with the process. Its own children read it from a file of mode 0600. It is in no answer, event or log."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

_BYTES: Final = 32
_REFUSAL: Final = b'{"error": {"message": "the internal secret is missing or wrong", "code": 401}}'

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def new_secret() -> str:
    """256 random bits, as a header takes them."""
    return secrets.token_urlsafe(_BYTES)


def headers_for(secret: str) -> dict[str, str]:
    """What a request to a process with this secret carries; nothing for one that has none."""
    return {"authorization": f"Bearer {secret}"} if secret else {}


def admits(secret: str, authorization: str) -> bool:
    """Whether an `Authorization` header holds the secret. The time it takes does not depend on how far it matches."""
    scheme, _, given = authorization.partition(" ")
    same = hmac.compare_digest(_digest(given.strip()), _digest(secret))
    return same and scheme.casefold() == "bearer" and bool(secret)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class SecretGuard:
    """ASGI: lets through what carries the secret, and the paths of `without`, exactly as they are written there.

    Without a secret everything is let through: the process listens on loopback then.
    """

    def __init__(self, app: App, *, secret: str, without: frozenset[str]) -> None:
        self._app = app
        self._secret = secret
        self._without = without

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """401 for a request, a refused handshake for a websocket."""
        if not self._secret or scope["type"] == "lifespan" or self._admitted(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})
        else:
            await receive()  # the handshake
            await send({"type": "websocket.close", "code": 1008})

    def _admitted(self, scope: Message) -> bool:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in self._without:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and admits(self._secret, given[0].decode("latin-1"))
