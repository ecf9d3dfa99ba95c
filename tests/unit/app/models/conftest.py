"""Checkpoints to be broken: copies of the tiny ones, and tools to rewrite their files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Copy = Callable[..., Path]


@pytest.fixture
def copy(tiny: Callable[..., Path], tmp_path: Path) -> Copy:
    """`copy(kind, **options)`: a tiny checkpoint of one's own."""

    def make(kind: str = "llama", name: str = "model", **options: Any) -> Path:
        return Path(shutil.copytree(tiny(kind, **options), tmp_path / name))

    return make


def edit_json(file: Path, **changes: Any) -> None:
    """Sets fields of a JSON file; None removes one."""
    data = json.loads(file.read_text())
    for key, value in changes.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = value
    file.write_text(json.dumps(data))
