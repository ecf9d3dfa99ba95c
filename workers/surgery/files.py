"""What every checkpoint folder that is made here has in common beside its weights."""

import os
import shutil
from pathlib import Path

from app.models.checkpoint import CHANNELS

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
)


def copy_companions(source: Path, folder: Path) -> None:
    """Copies configuration, tokenizer and the record of scaled channels, as far as they are there."""
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def give_usual_modes(folder: Path) -> None:
    """Temporary folders, and files that a library made within, admit no other user; what is kept follows the umask."""
    mask = os.umask(0o022)  # can only be read by setting it
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
