"""A modified checkpoint that is in use."""

from dataclasses import dataclass
from pathlib import Path

from app.models.checkpoint import CheckpointInfo
from workers.surgery.account import model_storage
from workers.surgery.manifest import MANIFEST, Manifest
from workers.surgery.store import StoredCheckpoint


@dataclass(frozen=True)
class Modified:
    """A checkpoint to be used, kept from eviction until `release` (or until the object is gone)."""

    path: Path
    fingerprint: str
    manifest: Manifest
    built: bool
    _entry: StoredCheckpoint | None = None

    def release(self) -> None:
        """Allows the store to evict it."""
        if self._entry is not None:
            self._entry.release()

    def __enter__(self) -> "Modified":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def opened(entry: StoredCheckpoint) -> Modified:
    """What the store holds, with its manifest."""
    manifest = Manifest.model_validate_json((entry.path / MANIFEST).read_bytes())
    return Modified(entry.path, manifest.fingerprint, manifest, entry.built, entry)


def untouched(source: CheckpointInfo, source_fingerprint: str) -> Manifest:
    """The manifest of a checkpoint that no step changes."""
    bits, size = model_storage(source, [])
    return Manifest(
        key="",
        source_fingerprint=source_fingerprint,
        fingerprint=source_fingerprint,
        recipe=(),
        recipe_fingerprint=None,
        tensors=(),
        model_bits_per_weight=bits,
        model_nominal_bytes=size,
        file_bytes=source.bytes,
    )
