"""Which home a service works on: an id that is made once and kept in the home, since two machines may share a path."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def read_instance(home: Path) -> str:
    """The id of the home; empty if no service has been up on it, or it cannot be read."""
    with suppress(OSError):
        return (home / "instance").read_text(encoding="ascii")
    return ""


def make_instance(home: Path) -> str:
    """The id of the home, made if there is none. Empty if the home cannot be written."""
    if known := read_instance(home):
        return known
    made = home / f".instance-{secrets.token_hex(4)}"
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        made.write_text(secrets.token_hex(8), encoding="ascii")
        with suppress(FileExistsError):
            os.link(made, home / "instance")  # whole, or another process' one
        made.unlink()
    return read_instance(home)
