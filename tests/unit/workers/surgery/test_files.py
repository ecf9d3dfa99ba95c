import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.contracts import blocks
from workers.surgery.files import copy_companions, give_usual_modes


@pytest.mark.parametrize(("mask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_modes_follow_the_umask(tmp_path, mask, folder_mode, file_mode):
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


def test_what_belongs_to_the_model_is_copied_and_nothing_else(tmp_path):
    source, folder = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    folder.mkdir()
    for name in (blocks.FILE, "config.json", "tokenizer.json", "README.md", "code.py", "model.safetensors"):
        (source / name).write_text(name)
    copy_companions(source, folder)
    assert sorted(file.name for file in folder.iterdir()) == [blocks.FILE, "config.json", "tokenizer.json"]
    assert (folder / "config.json").read_text() == "config.json"


KILLED_AT = """
import os, shutil, signal, sys
from pathlib import Path
from workers.surgery import files
left = int(sys.argv[1])
def step(frame, event, argument):
    global left
    if frame.f_code.co_filename in (files.__file__, shutil.__file__):
        left -= event == "line"
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step
sys.settrace(step)
files.publish(Path(sys.argv[2]), Path(sys.argv[3]))
"""
ROOT = Path(__file__).resolve().parents[4]
NAMES = ("config.json", "model.safetensors", "tokenizer.json")


def folder_of(path, text):
    path.mkdir()
    for name in NAMES:
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize("replaces", [True, False])
def test_a_kill_at_any_line_leaves_one_whole_folder(tmp_path, *, replaces):
    seen = []
    for line in range(0, 200, 5):
        root = tmp_path / str(line)
        root.mkdir()
        staging, destination = folder_of(root / ".made-1-x", "new"), root / "made"
        if replaces:
            folder_of(destination, "old")
        command = [sys.executable, "-c", KILLED_AT, str(line), str(staging), str(destination)]
        status = subprocess.run(command, check=False, cwd=ROOT).returncode
        if replaces or destination.exists():
            assert sorted(file.name for file in destination.iterdir()) == sorted(NAMES)
            (text,) = {file.read_text() for file in destination.iterdir()}
            seen.append(text)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert status == 0
    assert not staging.exists()
    assert set(seen) == ({"old", "new"} if replaces else {"new"})
    assert seen == sorted(seen, reverse=True)  # the old one, and from some line on the new one
