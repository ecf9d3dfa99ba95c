"""API keys of tests: as long as a key has to be, and files of them."""

import hashlib
from pathlib import Path


def key_text(name: str) -> str:
    """The key that goes by this name, the same each time."""
    return name.ljust(40, "-")


def bearer(name: str) -> dict[str, str]:
    """The header of a request with this key."""
    return {"authorization": f"Bearer {key_text(name)}"}


def key_line(owner: str, scopes: str, *more: str, key: str = "") -> str:
    """A line of a key file; the key goes by its owner's name unless `key` is given."""
    digest = hashlib.sha256(key_text(key or owner).encode()).hexdigest()
    return " ".join((owner, digest, scopes, *more)) + "\n"


def write_keys(file: Path, *lines: str) -> Path:
    file.write_text("".join(lines))
    return file
