"""What every checkpoint folder that is made here has in common beside its weights."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.contracts import blocks
from app.models.checkpoint import CHANNELS

_HERE: Final = -100  # AT_FDCWD
_EXCHANGE: Final = 2  # RENAME_EXCHANGE

# What belongs to a model and holds no code.
COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    CHANNELS,
    blocks.FILE,
)


def copy_companions(source: Path, folder: Path) -> None:
    """Copies configuration, tokenizer, record of scaled channels and block corrections, as far as they are there."""
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def link_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Makes `folder` the checkpoint by links to its files, and a config.json of its own. What is there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in checkpoint.iterdir():
        if file.name == "config.json":
            shutil.copyfile(file, folder / file.name)
        else:
            (folder / file.name).symlink_to(file.resolve())


def give_usual_modes(folder: Path) -> None:
    """Temporary folders, and files that a library made within, admit no other user; what is kept follows the umask."""
    mask = os.umask(0o022)  # can only be read by setting it
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def files_of(folder: Path) -> Iterator[Path]:
    """Files at any depth, sorted."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def publish(staging: Path, destination: Path) -> None:
    """Gives a complete folder its final name, on disk when this returns.

    An older folder of that name is exchanged for it in one step of the kernel, so that anyone who is killed leaves one
    of them there, whole. Then it is removed. Raises OSError, also if the file system cannot exchange folders (NFS)."""
    for file in files_of(staging):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    _sync_folder(staging)
    if destination.exists():
        _exchange(staging, destination)
        _sync_folder(destination.parent)
        shutil.rmtree(staging)
    else:
        staging.rename(destination)
    _sync_folder(destination.parent)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"folders cannot be exchanged here: {os.strerror(number)}", str(other))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
