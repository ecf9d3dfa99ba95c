#!/usr/bin/env python3
"""For health checks: `healthy.py URL [LINE]` ends with 0 when the URL answers 200, and with that line."""

import http.client
import sys
import urllib.error
import urllib.request


def main(arguments: list[str]) -> int:
    """Says on standard error what is wrong."""
    url, *lines = arguments
    try:
        with urllib.request.urlopen(url, timeout=4) as answer:  # noqa: S310 - the container's own service
            found = answer.read().decode("utf-8", "replace").splitlines()
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        print(f"{url}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    missing = [line for line in lines if line not in found]
    if missing:
        print(f"{url}: no line {missing[0]!r}", file=sys.stderr)  # noqa: T201
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
