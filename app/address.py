"""Addresses of this service's own HTTP servers, as URLs."""

from __future__ import annotations

from typing import Final

_EVERYWHERE: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - where a server listens, not what is asked for


def url_of(host: str, port: int) -> str:
    """`http://host:port`; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_url(host: str, port: int) -> str:
    """Where this machine reaches what listens on `host`: one that stands for all addresses is none to connect to."""
    return url_of("127.0.0.1" if host in _EVERYWHERE else host, port)
