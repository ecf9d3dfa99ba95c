"""Checkpoints to be broken: copies of tiny ones, and a tool to rewrite their files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Copy = Callable[..., Path]


def copier(tiny: Callable[..., Path], root: Path) -> Copy:
    """`copy(kind, name=…, **options)`: a tiny checkpoint of one's own below `root`."""

    def copy(kind: str = "llama", name: str = "model", **options: Any) -> Path:
        return Path(shutil.copytree(tiny(kind, **options), root / name))

    return copy


def edit_json(file: Path, **changes: Any) -> None:
    """Sets fields of a JSON file; None removes one."""
    data = json.loads(file.read_text())
    for key, value in changes.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = value
    file.write_text(json.dumps(data))
