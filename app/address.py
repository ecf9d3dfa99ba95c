"""Addresses of this service's own HTTP servers, as URLs."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import cache
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NETWORK: Final = Path("/proc/self/ns/net")


def machine() -> str:
    """What Linux calls this boot of the machine, in every container; "" elsewhere."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@cache
def loopback() -> str:
    """The same for all processes that share a loopback interface, whatever the host is called; "" if it is not
    known."""
    try:
        told = f"{machine()} {_NETWORK.readlink()}"
    except OSError:
        return ""
    return hashlib.sha256(told.encode()).hexdigest()[:16] if machine() else ""


def url_of(host: str, port: int) -> str:
    """`http://host:port`; an IPv6 address is in brackets, which it may have already."""
    return f"http://[{host}]:{port}" if ":" in host and not host.startswith("[") else f"http://{host}:{port}"


def listening_on(own: str, advertised: str | None) -> str:
    """The address that a server listens on: its `own`, or all if an operator advertises a name for other machines."""
    return own if advertised is None else "0.0.0.0"  # noqa: S104 - only then


def local_url(host: str, port: int) -> str:
    """Where this machine reaches what listens on `host`: one that means all addresses is none to connect to. A
    server that listens on all of IPv6 takes no connection of IPv4."""
    try:
        address = ipaddress.ip_address(host) if host else ipaddress.IPv4Address(0)
    except ValueError:
        return url_of(host, port)
    if address.is_unspecified:
        return url_of("127.0.0.1" if address.version == 4 else "::1", port)
    return url_of(host, port)
