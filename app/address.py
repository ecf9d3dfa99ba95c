"""Addresses of this service's own HTTP servers, as URLs."""

from __future__ import annotations

import ipaddress


def url_of(host: str, port: int) -> str:
    """`http://host:port`; an IPv6 address is in brackets, which it may have already."""
    return f"http://[{host}]:{port}" if ":" in host and not host.startswith("[") else f"http://{host}:{port}"


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
