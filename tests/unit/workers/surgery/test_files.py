import os
from pathlib import Path

import pytest

from workers.surgery.files import copy_companions, give_usual_modes


@pytest.mark.parametrize(("mask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_modes_follow_the_umask(tmp_path: Path, mask: int, folder_mode: int, file_mode: int) -> None:
    folder = tmp_path / "made"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("x")
    folder.chmod(0o700)
    (folder / "sub/file").chmod(0o600)
    before = os.umask(mask)
    try:
        give_usual_modes(folder)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == (folder / "sub").stat().st_mode & 0o777 == folder_mode
    assert (folder / "sub/file").stat().st_mode & 0o777 == file_mode


def test_what_belongs_to_the_model_is_copied_and_nothing_else(tmp_path: Path) -> None:
    source, folder = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "README.md", "code.py", "model.safetensors"):
        (source / name).write_text(name)
    copy_companions(source, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "tokenizer.json"]
    assert (folder / "config.json").read_text() == "config.json"
