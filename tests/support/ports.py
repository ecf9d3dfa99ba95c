"""Ports for processes that are told theirs before they listen."""

import itertools
import os
import random
import socket

# Below what the kernel gives to connections and to listeners that ask for any port (from 32768 on Linux): nobody is
# given such a port between its choice here and its process' listening.
_FIRST, _LAST = 20_000, 32_000
# Where tests run in several processes each has a share of its own: two of them would find the same port free.
_SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_SHARE = (_LAST - _FIRST) // _SHARES
_BEGIN = _FIRST + _SHARE * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES)
_NUMBERS = itertools.count(random.SystemRandom().randrange(_SHARE))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; this process is given each once."""
    for number in _NUMBERS:
        port = _BEGIN + number % _SHARE
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen()
            except OSError:
                continue
        return port
    raise AssertionError
