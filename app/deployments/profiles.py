"""The calibration profiles on disk, as the front end reads them: descriptions, no tensors.

    HOME/profiles/<version>/   profile.json, calibrator.json, tensors.safetensors

A profile's folder appears whole and never changes. What is not whole (another program's folder, a damaged file) is left
out of lists and named where it is asked for.
"""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from app.contracts.deployment import IDENTITY, VERSION_PATTERN
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.profile import Profile
from app.settings import Settings

PROFILE_FILE: Final = "profile.json"
MAX_SHOWN: Final = 64
_VERSION: Final = re.compile(VERSION_PATTERN)


def is_version(text: str) -> bool:
    """Whether it could be the version of a profile; `identity` is one that needs no files."""
    return text != IDENTITY and _VERSION.fullmatch(text) is not None


class ProfileFiles:
    """Profiles below `settings.home`. Every call reads the disk: several processes share it."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.home / "profiles"

    def folder(self, version: str) -> Path:
        """Where a profile is. Raises PROFILE_NOT_FOUND for what cannot be a version."""
        if not is_version(version):
            raise not_found(version)
        return self.root / version

    def get(self, version: str) -> Profile:
        """Raises PROFILE_NOT_FOUND, or PROFILE_CORRUPT if its description cannot be read."""
        path = self.folder(version) / PROFILE_FILE
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(version) from None
        try:
            profile = Profile.model_validate_json(text)
        except ValidationError as error:
            raise _corrupt(version, "its description does not fit this version of Hemostat") from error
        if profile.version != version:
            raise _corrupt(version, f"its description is that of {profile.version}")
        return profile

    def list(self) -> tuple[Profile, ...]:
        """All that can be read, newest first."""
        found = []
        names = sorted(entry.name for entry in self.root.iterdir()) if self.root.is_dir() else []
        for name in names:
            if is_version(name):
                try:
                    found.append(self.get(name))
                except HemostatError:  # deleted meanwhile, or damaged
                    continue
        return tuple(sorted(found, key=lambda profile: (-profile.created_at, profile.version)))

    def delete(self, version: str) -> None:
        """Removes a profile. Whether somebody serves it is for the caller to know. Raises PROFILE_NOT_FOUND."""
        gone = self.root / f".{version}.{secrets.token_hex(4)}"
        try:
            # At once out of every list; a process that has it open keeps what it has read.
            self.folder(version).rename(gone)
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(version) from None
        shutil.rmtree(gone)


def not_found(version: str) -> HemostatError:
    """The error for a profile that is not there, or that the key may not see."""
    shown = ascii(version[:MAX_SHOWN])
    hint = "`hemostat profiles list` shows them."
    if version == IDENTITY:
        return HemostatError(ErrorCode.PROFILE_NOT_FOUND, "identity changes nothing and has no profile.", hint=hint)
    return HemostatError(ErrorCode.PROFILE_NOT_FOUND, f"There is no calibration profile {shown}.", hint=hint)


def _corrupt(version: str, why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.PROFILE_CORRUPT,
        f"Profile {version} cannot be used: {why}.",
        hint="Delete it and fit it again.",
    )
