"""Models as the command line takes them: an alias, a folder, or a hub id. A service takes aliases only, so a folder or
hub id gets one, in the models.toml that the service reads."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from app.cli.hub import download
from app.cli.output import busy, err
from app.cli.service import connect_if_up
from app.contracts.errors import ErrorCode, HemostatError
from app.instance import read_instance
from app.models import looking
from app.models.registry import ALIAS, ModelEntry, Registry, Snapshot, in_hub_cache, load_registry, register
from app.settings import Settings

_NAME: Final = r"[A-Za-z0-9][\w.-]{0,95}"
_HUB: Final = re.compile(rf"(?P<id>{_NAME}/{_NAME})(@(?P<revision>[A-Za-z0-9][\w./-]{{0,199}}))?")


def alias_of(written: str, settings: Settings, *, url: str | None, fetch: bool = False) -> str:
    """The alias of a model. A folder or hub id that has none is checked and gets one. `fetch`: download what the
    local cache lacks of a hub id. Any other word is returned as it is: the service knows its aliases.

    Raises `HemostatError`: CHECKPOINT_NOT_FOUND, what a checkpoint can be refused with, INVALID_REQUEST if the service
    in use does not read models.toml of this home.
    """
    registry = registered(settings)
    if written in registry.entries or not _is_place(written, url):
        return written
    _require_shared(settings, url)
    target = locate(written, fetch=fetch)
    known = [name for name, entry in registry.entries.items() if _same(entry.target, target)]
    alias = known[0] if known else _free(target, registry)
    if not known:
        add(alias, target, settings, replace=False)
        err.print(f"wrote the alias {alias} for {written} into {settings.models_file}", markup=False, soft_wrap=True)
    _require_known(alias, settings, url)
    return alias


def _is_place(written: str, url: str | None) -> bool:
    """Whether a word is a folder or a hub id. A plain word for a service that is named by its address is an alias."""
    return "/" in written or (url is None and written != "" and _folder(written) is not None)


def _folder(written: str) -> Path | None:
    try:
        folder = Path(written).expanduser()
        return folder.absolute() if folder.is_dir() else None
    except (OSError, RuntimeError):  # too long for a path; no such user
        return None


def locate(written: str, *, fetch: bool = False) -> Path | Snapshot:
    """The folder, or the hub id at its commit. Raises CHECKPOINT_NOT_FOUND, and what `download` raises."""
    folder = _folder(written)
    if folder is not None:
        return folder
    parts = _HUB.fullmatch(written)
    if parts is None:
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FOUND,
            f"{written!r} is neither a folder here nor a hub id",
            hint="give a folder that holds config.json and safetensors, or a hub id: org/name, org/name@revision",
        )
    hub_id, revision = parts["id"], parts["revision"] or "main"
    found = download(hub_id, revision) if fetch else in_hub_cache(hub_id, revision)
    if found is None:
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FOUND,
            f"there is no folder {written}, and {hub_id} at {revision} is not in the local hub cache",
            hint="correct the path, or add --download to fetch the model from the hub",
        )
    return Snapshot(hub_id, found.name)


def add(alias: str, target: Path | Snapshot, settings: Settings, *, replace: bool = True) -> str:
    """Looks into the checkpoint, then writes the alias into models.toml. Returns what the checkpoint is.

    Raises `HemostatError`: what a checkpoint can be refused with, and what `register` raises.
    """
    path, hub = (target, None) if isinstance(target, Path) else (None, target)
    entry = ModelEntry(alias, path, hub and hub.hub_id, hub and hub.revision)
    with busy(f"looking into {path or entry.hub_id} …"):
        found = looking.describe(entry)
    register(settings.models_file, alias, target, replace=replace)
    return found


def registered(settings: Settings) -> Registry:
    """The aliases of models.toml; none if there is no such file."""
    file = settings.models_file
    return load_registry(file) if file.exists() else Registry(file, {})


def require_free(alias: str, registry: Registry, *, target: Path | Snapshot | None = None) -> None:
    """Raises INVALID_REQUEST if the alias is not a valid one, or leads elsewhere than to `target`."""
    if ALIAS.fullmatch(alias) is None:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{alias!r} is not a valid alias",
            hint="an alias is 1 to 128 letters, digits, '.', '_' and '-'",
        )
    entry = registry.entries.get(alias)
    if entry is None or entry.target == target or (entry.path is not None and not entry.path.exists()):
        return
    raise HemostatError(
        ErrorCode.INVALID_REQUEST,
        f"the alias {alias!r} is in use: it names {entry.path or entry.hub_id}",
        hint="give another alias, or --replace",
    )


def _same(one: Path | Snapshot, other: Path | Snapshot) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return one == other


def _free(target: Path | Snapshot, registry: Registry) -> str:
    """The target's own name; with a part of its digest if another model has that name."""
    name = target.resolve().name if isinstance(target, Path) else target.hub_id.rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:100] or "model"
    if name not in registry.entries:
        return name
    return f"{name}-{hashlib.sha256(str(target).encode()).hexdigest()[:8]}"


def _require_shared(settings: Settings, url: str | None) -> None:
    with connect_if_up(url, settings) as client:
        if client is None or client.readiness().get("instance", "") == read_instance(settings.home.expanduser()):
            return
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the service at {client.url} may not read the models.toml of this home, so it takes aliases only",
            hint="on its machine: hemostat models add ALIAS FOLDER|HUB_ID; then name the alias",
        )


def _require_known(alias: str, settings: Settings, url: str | None) -> None:
    with connect_if_up(url, settings) as client:
        told = None if client is None else client.readiness().get("models")
    if told is not None and alias not in {entry["alias"] for entry in told}:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the service does not know {alias!r}: it reads another models.toml than {settings.models_file}",
            hint="set HEMOSTAT_MODELS to the file that the service reads",
        )
