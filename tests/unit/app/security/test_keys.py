import os
import stat
import subprocess
import sys

import pytest

from app.security.keys import (
    LOOK_S,
    KeyFile,
    KeyFileError,
    add_key,
    check_binding,
    is_loopback,
    load_keys,
    parse_time,
    revoke_keys,
    written_time,
)
from app.security.scopes import Scope
from app.settings import Settings
from tests.support.keys import key_line, key_text, write_keys

DIGEST = "a" * 64
READ = frozenset({Scope.READ})


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_key_is_known_by_its_digest_with_what_its_line_says(tmp_path):
    lines = (
        "# comment\n\n",
        key_line("ci", "read,diagnose", "no-shadow", "expires=2999-01-01"),
        key_line("ops", "admin"),
    )
    ring = KeyFile(write_keys(tmp_path / "keys", *lines))
    found = ring.find(key_text("ci"))
    assert found is not None
    assert (found.owner, found.scopes, found.no_shadow) == ("ci", {Scope.READ, Scope.DIAGNOSE}, True)
    assert found.expires == parse_time("2999-01-01T00:00:00Z")
    assert ring.find(key_text("ops")) is not None
    for wrong in ("", "three", found.digest, key_text("ci") + " ", "\udc80"):
        assert ring.find(wrong) is None


@pytest.mark.parametrize(
    "line",
    [
        "plain-key",
        f"ci {DIGEST}",
        f"ci {DIGEST[:-1]} read",
        f"ci {DIGEST.upper()} read",
        f"bad/name {DIGEST} read",
        f"ci {DIGEST} write",
        f"ci {DIGEST} ,",
        f"ci {DIGEST} read expires=soon",
        f"ci {DIGEST} read noshadow",
    ],
)
def test_a_line_of_any_other_form_is_refused_by_its_number_and_not_quoted(tmp_path, line):
    with pytest.raises(KeyFileError, match="line 2") as caught:
        load_keys(write_keys(tmp_path / "keys", key_line("ops", "admin"), line))
    assert DIGEST[:-1] not in str(caught.value)
    assert "plain-key" not in str(caught.value)


def test_one_key_has_one_line_and_one_owner_any_number_of_keys(tmp_path):
    line = key_line("ci", "read")
    assert len(load_keys(write_keys(tmp_path / "keys", line, key_line("ci", "read", key="next")))) == 2
    with pytest.raises(KeyFileError):
        load_keys(write_keys(tmp_path / "keys", line, line))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(KeyFileError):
        KeyFile(tmp_path / "nowhere")


def test_a_change_of_the_file_counts_within_a_second_and_is_looked_for_no_oftener(tmp_path):
    file, clock = write_keys(tmp_path / "keys", key_line("ci", "read")), Clock()
    ring = KeyFile(file, clock=clock)
    held = ring.find(key_text("ci"))
    assert held is not None
    write_keys(file, key_line("other", "read"))
    assert ring.find(key_text("ci")) == held  # not looked at yet
    clock.now += LOOK_S
    assert ring.find(key_text("ci")) is None
    assert not ring.holds(held)
    assert ring.find(key_text("other")) is not None


@pytest.mark.parametrize("broken", ["ops nonsense\n", "\udc80\n", key_line("ci", "admin")])
def test_only_the_lines_that_can_be_read_stay_in_force(tmp_path, broken, caplog):
    file, clock = write_keys(tmp_path / "keys", key_line("ci", "read"), key_line("ops", "read")), Clock()
    ring = KeyFile(file, clock=clock)
    assert ring.faults() == 0
    file.write_text(f"{key_line('ci', 'read')}\n{broken}", errors="surrogateescape")
    for _ in range(3):
        clock.now += LOOK_S
        assert ring.find(key_text("ops")) is None  # revoked by the same edit
        assert (ring.find(key_text("ci")) is None) == ("\udc80" in broken)  # no text at all: no line of it counts
    assert ring.faults() == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    write_keys(file, key_line("ops", "read"))
    clock.now += LOOK_S
    assert ring.find(key_text("ops")) is not None
    assert ring.faults() == 0


@pytest.mark.parametrize("instead", [False, True], ids=["nothing", "folder"])
def test_without_its_file_no_key_is_in_force_until_it_is_there_again(tmp_path, instead):
    file, clock = write_keys(tmp_path / "keys", key_line("ci", "read")), Clock()
    ring = KeyFile(file, clock=clock)
    file.rename(tmp_path / "aside")
    if instead:
        file.mkdir()
    for _ in range(2):
        clock.now += LOOK_S
        assert ring.find(key_text("ci")) is None
        assert ring.faults() == 1
    if instead:
        file.rmdir()
    (tmp_path / "aside").rename(file)
    clock.now += LOOK_S
    assert ring.find(key_text("ci")) is not None


def test_a_key_ends_when_it_expires(tmp_path):
    now = Clock()
    ring = KeyFile(write_keys(tmp_path / "keys", key_line("ci", "read", f"expires={written_time(1100)}")), now=now)
    held = ring.find(key_text("ci"))
    assert held is not None
    assert ring.holds(held)
    now.now = 1100.0
    assert ring.find(key_text("ci")) is None
    assert not ring.holds(held)


# --- changes


def test_a_key_that_is_made_opens_and_one_that_is_revoked_does_not(tmp_path):
    file = tmp_path / "keys"
    first, key = add_key(file, "ci", READ, expires=None, no_shadow=True)
    file.write_text("# by hand\n" + file.read_text().rstrip("\n"))
    second, other = add_key(file, "ci", READ, expires=2e9, no_shadow=False)
    assert first not in file.read_text()
    assert len({first, second}) == 2
    assert len(first) >= 43  # 256 random bits
    ring = KeyFile(file)
    assert (ring.find(first), ring.find(second)) == (key, other)
    assert revoke_keys(file, key.id) == [key]
    ring = KeyFile(file)
    assert (ring.find(first), ring.find(second)) == (None, other)
    assert file.read_text().startswith("# by hand\n")
    assert revoke_keys(file, "nobody") == []
    assert revoke_keys(file, "ci") == [other]
    assert load_keys(file) == ()


def test_the_file_is_its_owners_alone_and_no_other_file_is_left(tmp_path):
    file = tmp_path / "keys"
    add_key(file, "ci", READ, expires=None, no_shadow=False)
    file.chmod(0o644)
    add_key(file, "ops", READ, expires=None, no_shadow=False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_read_is_not_written_over(tmp_path):
    file = write_keys(tmp_path / "keys", "what is this\n")
    with pytest.raises(KeyFileError):
        add_key(file, "ci", READ, expires=None, no_shadow=False)
    with pytest.raises(KeyFileError):
        revoke_keys(file, "ci")
    assert file.read_text() == "what is this\n"


def test_keys_that_processes_make_at_one_time_are_all_kept(tmp_path):
    program = (
        "import sys; from pathlib import Path; from app.security.keys import add_key; from app.security.scopes import "
        "Scope\nfor _ in range(20): add_key(Path(sys.argv[1]), 'ci', frozenset({Scope.READ}), expires=None, "
        "no_shadow=False)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "keys")]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(load_keys(tmp_path / "keys")) == 60


# --- where it may listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback_needs_no_keys(host):
    assert is_loopback(host)
    assert check_binding(Settings(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "", "127.0.0.1.example.com"])
def test_any_other_address_is_refused_without_keys(tmp_path, host):
    with pytest.raises(KeyFileError, match="HEMOSTAT_API_KEYS_FILE"):
        check_binding(Settings(host=host))
    file = write_keys(tmp_path / "keys", key_line("k", "read"))
    ring = check_binding(Settings(host=host, api_keys_file=file))
    assert ring is not None
    assert ring.find(key_text("k")) is not None


def test_an_edit_that_keeps_size_and_time_of_the_file_counts(tmp_path):
    file, clock = write_keys(tmp_path / "keys", key_line("ci", "read")), Clock()
    ring = KeyFile(file, clock=clock)
    before = file.stat()
    write_keys(file, key_line("op", "read"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    clock.now += LOOK_S
    assert ring.find(key_text("ci")) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86400),
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T00:01:00", 60),
        ("1970-01-01T02:00:00+02:00", 0),
    ],
)
def test_a_time_is_utc_unless_it_names_a_zone(text, seconds):
    assert parse_time(text) == seconds
    assert parse_time(written_time(seconds)) == seconds
