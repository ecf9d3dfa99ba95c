import hashlib
from pathlib import Path

import pytest

from app.security.keys import KeyFileError, check_binding, is_loopback, load_keys
from app.settings import Settings


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def write(folder: Path, text: str) -> Path:
    file = folder / "keys"
    file.write_text(text)
    return file


def test_a_key_is_known_by_its_digest(tmp_path: Path) -> None:
    ring = load_keys(write(tmp_path, f"# comment\n\nci:{digest('one')}\n  {digest('two').upper()}  \n"))
    assert ring.owner("one") == "ci"
    assert ring.owner("two") == digest("two")[:8]
    for wrong in ("", "three", digest("one"), "one ", "\udc80"):
        assert ring.owner(wrong) is None


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "plain-key\n", f"{'a' * 63}\n", f"bad name:{'a' * 64}\n", f"a:{'a' * 64}\na:{'b' * 64}\n"],
)
def test_a_file_that_holds_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(KeyFileError):
        load_keys(write(tmp_path, text))


def test_the_message_names_the_line_and_never_repeats_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError) as caught:
        load_keys(write(tmp_path, f"{'a' * 64}\nhunter2\n"))
    assert "line 2" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        load_keys(tmp_path / "nowhere")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert is_loopback(host)
    assert check_binding(Settings(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "", "127.0.0.1.example.com"])
def test_any_other_address_is_refused_without_keys(tmp_path: Path, host: str) -> None:
    with pytest.raises(KeyFileError, match="HEMOSTAT_API_KEYS_FILE"):
        check_binding(Settings(host=host))
    ring = check_binding(Settings(host=host, api_keys_file=write(tmp_path, digest("k"))))
    assert ring is not None
    assert ring.owner("k") is not None
