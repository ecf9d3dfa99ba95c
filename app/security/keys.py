"""API keys: a text file with one key per line. `hemostat keys` writes it; it never holds a key itself.

# owner, SHA-256 of the key, scopes; then what may be left out
ci 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 diagnose,read expires=2027-01-01T00:00:00Z
app 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 inference no-shadow
"""

import contextlib
import fcntl
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.files import write_atomically
from app.security.scopes import Key, Scope
from app.settings import Settings

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0  # the file is looked at once in so many seconds at most
LEAST_CHARACTERS: Final = 32  # of a key; shorter ones can be guessed
_KEY_BYTES: Final = 32
OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FORMAT: Final = (
    "write OWNER, the SHA-256 of the key in lower-case hexadecimal and SCOPE,SCOPE, separated by spaces; "
    "then, if needed, expires=TIME and no-shadow"
)


class KeyFileError(ValueError):
    """The key file cannot be used, or the service may not be started without one; the text says why."""


class KeyFile:
    """The keys in force. The file is read again when it changes.

    Then only lines that can be read count: without the file no key is in force. The log says what is wrong.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        self._now = now
        self._looked_at = clock()
        self._stamp = _stamp(path)
        self._keys = load_keys(path)
        self._faults: list[str] = []

    def faults(self) -> int:
        """How many lines cannot be read; 1 if the whole file cannot."""
        self._current()
        return len(self._faults)

    def find(self, sent: str) -> Key | None:
        """The live key, or None. The time it takes does not depend on which key matches, or how far."""
        digest = hashlib.sha256(sent.encode("utf-8", "surrogateescape")).hexdigest()
        found: Key | None = None
        for key in self._current():
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found if found is not None and self._lives(found) else None

    def holds(self, key: Key) -> bool:
        """Whether a key that was found before is still in force as it was."""
        return key in self._current() and self._lives(key)

    def _lives(self, key: Key) -> bool:
        return key.expires is None or self._now() < key.expires

    def _current(self) -> tuple[Key, ...]:
        now = self._clock()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._read()
        return self._keys

    def _read(self) -> None:
        try:
            keys, faults = _read_keys(self._path)
        except KeyFileError as error:
            keys, faults = [], [str(error)]
            self._stamp = None  # it may be for a moment only: the file is read again at the next look
        if faults and faults != self._faults:
            logger.error("API keys: %s; %d keys are in force", "; ".join(faults), len(keys))
        elif not faults:
            logger.info("the API keys were read again: %d", len(keys))
        self._keys, self._faults = tuple(keys), faults


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ctime_ns, stat.st_size, stat.st_ino  # a change of its mode does not change st_mtime_ns


def load_keys(file: Path) -> tuple[Key, ...]:
    """Reads the file. Raises KeyFileError, naming the line, for anything but keys, comments and blank lines."""
    keys, faults = _read_keys(file)
    if faults:
        raise KeyFileError(faults[0])
    return tuple(keys)


def _read_keys(file: Path) -> tuple[list[Key], list[str]]:
    """The keys of the lines that can be read, and what is wrong with each other line."""
    keys: dict[str, Key] = {}
    faults = []
    for number, line in enumerate(_lines(file), 1):
        try:
            key = _parse(line)
            if key is not None and key.digest in keys:
                raise ValueError("this key has a line already")
        except ValueError as error:
            faults.append(f"{file} line {number}: {error}")
            continue
        if key is not None:
            keys[key.digest] = key
    return list(keys.values()), faults


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the API key file {file} cannot be read: {error}") from error


def _parse(line: str) -> Key | None:
    """The key of a line; None for a comment or a blank one. Raises ValueError, which does not quote the line."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    if len(words) < 3 or not OWNER.fullmatch(words[0]) or not _DIGEST.fullmatch(words[1]):
        raise ValueError(_FORMAT)
    expires, no_shadow = None, False
    for word in words[3:]:
        if word == "no-shadow":
            no_shadow = True
        elif word.startswith("expires="):
            expires = parse_time(word.removeprefix("expires="))
        else:
            raise ValueError(_FORMAT)
    return Key(words[0], words[1], parse_scopes(words[2].split(",")), expires, no_shadow)


def parse_scopes(names: list[str]) -> frozenset[Scope]:
    """Raises ValueError for a name that is no scope, and for none."""
    try:
        scopes = frozenset(map(Scope, names))
    except ValueError:
        scopes = frozenset()
    if not scopes:
        raise ValueError(f"a scope is one of {', '.join(Scope)}")
    return scopes


def parse_time(text: str) -> float:
    """Unix time in seconds of a date or a time (ISO 8601, UTC unless it names a zone). Raises ValueError."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a time is a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z") from None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def written_time(seconds: float) -> str:
    """As `parse_time` reads it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- changes, by `hemostat keys`


def add_key(
    file: Path, owner: str, scopes: frozenset[Scope], *, expires: float | None, no_shadow: bool
) -> tuple[str, Key]:
    """Makes a key; the text of it is returned once and kept nowhere. Raises KeyFileError for a bad file."""
    text = f"hk-{secrets.token_urlsafe(_KEY_BYTES)}"
    key = Key(owner, hashlib.sha256(text.encode()).hexdigest(), scopes, expires, no_shadow)
    words = [owner, key.digest, ",".join(sorted(scopes))]
    words += [] if expires is None else [f"expires={written_time(expires)}"]
    words += ["no-shadow"] if no_shadow else []
    with _editing(file) as lines:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append(" ".join(words) + "\n")
    return text, key


def revoke_keys(file: Path, name: str) -> list[Key]:
    """Removes the key of this id, or all keys of this owner. Raises KeyFileError for a bad file."""
    gone: list[Key] = []
    with _editing(file) as lines:
        kept = []
        for line in lines:
            key = _parse(line)
            if key is not None and name in (key.id, key.owner):
                gone.append(key)
            else:
                kept.append(line)
        lines[:] = kept
    return gone


@contextlib.contextmanager
def _editing(file: Path) -> Iterator[list[str]]:
    """The lines, to be changed in place; written whole, readable by the file's owner alone. One process at a time."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lines: list[str] = []
        if file.exists():
            load_keys(file)  # nothing is written over what cannot be read
            lines = _lines(file)
        before = list(lines)
        yield lines
        if lines == before:
            return
        owner = file.stat() if file.exists() else None
        write_atomically(file, "".join(lines).encode(), mode=0o600)
        if owner is not None and os.geteuid() == 0:  # the service's user must still read what root has changed
            os.chown(file, owner.st_uid, owner.st_gid)
    finally:
        os.close(folder)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_binding(settings: Settings) -> KeyFile | None:
    """The keys in force; None: there are none, and none are needed.

    Raises KeyFileError for a bad key file, and if the service would listen beyond this machine without keys.
    """
    if settings.api_keys_file is not None:
        return KeyFile(settings.api_keys_file)
    if not is_loopback(settings.host):
        raise KeyFileError(
            f"HEMOSTAT_HOST={settings.host} can be reached from other machines. Set HEMOSTAT_API_KEYS_FILE to a file "
            "of `hemostat keys add`, or listen on 127.0.0.1"
        )
    return None
