"""What tells one content of a file from another."""

import hashlib
from pathlib import Path

Signature = tuple[int, int, int]
_READ_BYTES = 1 << 24


def signature(file: Path) -> Signature:
    """What changes with a file's content, read without its content: time of change (ns), size (bytes), inode."""
    stat = file.stat()
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def sha256(file: Path, size: int) -> "hashlib._Hash":
    """SHA-256 over the first `size` bytes. OSError where there are fewer."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while size > 0:
            part = stream.read(min(_READ_BYTES, size))
            if not part:
                raise OSError(f"{file.name} ends too early")
            digest.update(part)
            size -= len(part)
    return digest
