"""Calibration profiles: a calibrator's files with the record of how it was fitted, under a hash of both.

Putting the same fit twice gives the same version, and the folder that was there stays. What is measured (timings, test
results) is stored beside and does not decide the version; a record for a deployment replaces one for none.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from typing import Final

import torch

from app.contracts.profile import Profile, ProfileRecord, Setting
from app.deployments.profiles import PROFILE_FILE, ProfileFiles
from workers.calibrators import storage
from workers.calibrators.base import Base
from workers.calibrators.kinds import Chain
from workers.calibrators.protocol import Calibrator

_HASHED: Final = 16  # hex digits of a version


class ProfileStore(ProfileFiles):
    """Profiles below `settings.home`, with their tensors."""

    def put(self, calibrator: Calibrator, record: ProfileRecord) -> Profile:
        """Stores a fitted calibrator, or finds the same one that was stored before.

        Raises ValueError if the record is of a model that the calibrator does not fit, or a number is not finite.
        """
        for name, told in (("hidden_size", record.fit.hidden_size), ("vocabulary", record.fit.vocabulary)):
            own = _size(calibrator, name)
            if own is not None and own != told:
                raise ValueError(f"the calibrator is for models of size {own}, the record says {told}")
        self.root.mkdir(parents=True, exist_ok=True)
        made = self.root / f".new-{secrets.token_hex(8)}"
        try:
            storage.save(calibrator, made)
            digest = hashlib.sha256(b"hemostat.profile/1\0")
            for name in (storage.CALIBRATOR_FILE, storage.TENSORS_FILE):
                digest.update(hashlib.sha256((made / name).read_bytes()).digest())
            digest.update(canonical(record).encode())
            version = f"cal-{digest.hexdigest()[:_HASHED]}"
            profile = Profile(
                **dict(record),
                version=version,
                calibrator=name_of(calibrator),
                parameters=parameters_of(calibrator),
                bytes=tensor_bytes(calibrator),
                created_at=time.time(),
            )
            path = made / PROFILE_FILE
            with path.open("w", encoding="utf-8") as file:
                file.write(profile.model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            try:
                made.rename(self.root / version)
            except OSError:
                if not (self.root / version).is_dir():
                    raise
                found = self.get(version)
                if found.deployment is not None or profile.deployment is None:
                    return found
                path.replace(self.root / version / PROFILE_FILE)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        _sync(self)
        return profile

    def load(
        self,
        version: str,
        *,
        device: torch.device | str,
        dtype: torch.dtype | None = None,
        hidden_size: int | None = None,
        vocabulary: int | None = None,
    ) -> Base:
        """The calibrator of a profile. Given sizes are checked.

        Raises PROFILE_NOT_FOUND, PROFILE_CORRUPT, PROFILE_MISMATCH.
        """
        self.get(version)
        calibrator = storage.load(self.folder(version), hidden_size=hidden_size, vocabulary=vocabulary)
        return calibrator.to(torch.device(device), dtype)


def canonical(record: ProfileRecord) -> str:
    """The part of a record that decides the version, as one text."""
    return json.dumps(record.fit.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def name_of(calibrator: Calibrator) -> str:
    """Its parts, joined by +: `lowrank+confidence`."""
    parts = calibrator.parts if isinstance(calibrator, Chain) else (calibrator,)
    return "+".join(part.kind for part in parts) or "identity"


def parameters_of(calibrator: Calibrator) -> dict[str, Setting]:
    """What it exports of itself."""
    return dict(calibrator.describe())


def tensor_bytes(calibrator: Calibrator) -> int:
    """Bytes of its tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in calibrator.tensors().values())


def _size(calibrator: Calibrator, name: str) -> int | None:
    size: int | None = getattr(calibrator, name, None)
    return size


def _sync(store: ProfileFiles) -> None:
    folder = os.open(store.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
