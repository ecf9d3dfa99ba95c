import hashlib
import os
from pathlib import Path

import pytest

from workers.distributions.reference_store import sha256, signature


def test_the_digest_is_that_of_the_first_bytes(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abcdef")
    assert sha256(file, 3).digest() == hashlib.sha256(b"abc").digest()
    with pytest.raises(OSError, match="too early"):
        sha256(file, 7)


def test_a_file_that_was_replaced_has_another_signature(tmp_path: Path) -> None:
    file, other = tmp_path / "f", tmp_path / "g"
    file.write_bytes(b"a")
    before = signature(file)
    assert signature(file) == before
    other.write_bytes(b"b")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert signature(file) != before
