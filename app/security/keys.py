"""API keys: a file of SHA-256 digests, one a line, optionally `name:digest`, optionally followed by flags.

# printf %s "$KEY" | sha256sum
ci:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
app:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 !noshadow

`!noshadow`: what is generated for this key is never scored again.
"""

import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings

_LINE = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):)?(?P<digest>[0-9a-fA-F]{64})(?P<no_shadow>\s+!noshadow)?"
)


class KeyFileError(ValueError):
    """The key file cannot be used, or the service may not be started without one; the text says why."""


@dataclass(frozen=True)
class KeyRing:
    """The keys in force, as (name, digest). Keys without a name are called by the start of their digest."""

    entries: tuple[tuple[str, bytes], ...]
    no_shadow: frozenset[str] = frozenset()  # names of keys whose traffic is never scored again

    def owner(self, key: str) -> str | None:
        """Name of the key, or None. The time it takes does not depend on which entry matches, or how far."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found: str | None = None
        for name, entry in self.entries:
            if hmac.compare_digest(digest, entry):
                found = name
        return found


def load_keys(file: Path) -> KeyRing:
    """Reads the file. Raises KeyFileError, naming the line, for anything but digests, comments and blank lines."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the API key file {file} cannot be read: {error}") from error
    entries: list[tuple[str, bytes]] = []
    no_shadow: set[str] = set()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise KeyFileError(
                f"{file} line {number}: write NAME:DIGEST or DIGEST, the SHA-256 of the key in hexadecimal "
                '(printf %s "$KEY" | sha256sum), and behind it nothing or !noshadow'
            )
        digest = match["digest"].lower()
        name = match["name"] or digest[:8]
        entries.append((name, bytes.fromhex(digest)))
        if match["no_shadow"]:
            no_shadow.add(name)
    if not entries:
        raise KeyFileError(f"the API key file {file} holds no key")
    names = [name for name, _ in entries]
    if len(set(names)) != len(names):
        raise KeyFileError(f"{file}: two keys have the same name")
    return KeyRing(tuple(entries), frozenset(no_shadow))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_binding(settings: Settings) -> KeyRing | None:
    """The keys in force, None where there are none and none are needed.

    Raises KeyFileError for a bad key file, and where the service would listen beyond this machine without keys.
    """
    if settings.api_keys_file is not None:
        return load_keys(settings.api_keys_file)
    if not is_loopback(settings.host):
        raise KeyFileError(
            f"HEMOSTAT_HOST={settings.host} can be reached from other machines: set HEMOSTAT_API_KEYS_FILE to a "
            "file of key digests, or listen on 127.0.0.1"
        )
    return None
