"""The reference store between processes: one is killed in the middle of a pass, another goes on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workers.distributions.reference_store import ReferenceStore

LENGTHS = [700] * 24
SIZE = 2048
# 20 windows of 2.9 MB each, then it waits to be killed.
WRITER = f"""
import sys, time
from pathlib import Path
import torch
from workers.distributions.reference_store import ReferenceStore

store = ReferenceStore(Path(sys.argv[1]), 10**9)
with store.write("key", {LENGTHS!r}, {SIZE}, {{}}) as writer:
    for index in range(writer.windows_done, 20):
        generator = torch.Generator().manual_seed(index)
        writer.append(torch.randn(700, {SIZE}, generator=generator).bfloat16())
    print(writer.windows_done, flush=True)
    time.sleep(600)
"""


def window(index: int) -> torch.Tensor:
    return torch.randn(700, SIZE, generator=torch.Generator().manual_seed(index)).bfloat16()


def test_a_pass_whose_process_is_killed_is_continued_by_another(tmp_path: Path) -> None:
    root = tmp_path / "references"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "20"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    store = ReferenceStore(root, 10**9)
    assert store.open("key") is None
    with store.write("key", LENGTHS, SIZE, {}) as writer:  # the lock of the dead is free
        assert 20 - 11 - 3 <= writer.windows_done <= 20  # no more than 8,192 rows and 8 MiB were lost
        for index in range(writer.windows_done, len(LENGTHS)):
            writer.append(window(index))
    stored = store.open("key")
    for index in range(len(LENGTHS)):
        assert torch.equal(stored.window(index), window(index))


def test_what_another_process_reads_is_not_evicted(tmp_path: Path) -> None:
    root = tmp_path / "references"
    store = ReferenceStore(root, 10**9)
    with store.write("key", [3], 8, {}) as writer:
        writer.append(torch.zeros(3, 8).bfloat16())
    reader = f"""
import sys
from pathlib import Path
from workers.distributions.reference_store import ReferenceStore
stored = ReferenceStore(Path({str(root)!r}), 0).open("key")
print(stored is not None, flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", reader], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline().strip() == "True"
        nothing = ReferenceStore(root, 0)
        nothing.evict()
        assert store.folder("key").is_dir()
        process.kill()
        process.wait()
    nothing.evict()
    assert not store.folder("key").exists()


@pytest.mark.parametrize("signal", ["kill", "terminate"])
def test_a_dead_reader_leaves_no_lock(tmp_path: Path, signal: str) -> None:
    """Covered by the kernel; here so that nobody replaces the lock by a file that outlives its process."""
    root = tmp_path / "references"
    hold = (
        f"import time\nfrom pathlib import Path\nfrom app.locks import try_lock\n"
        f"lock = try_lock(Path({str(root / 'lock')!r}), exclusive=True)\nprint(lock is not None, flush=True)\n"
        "time.sleep(600)\n"
    )
    from app.locks import try_lock

    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "True"
        assert try_lock(root / "lock", exclusive=False) is None
        getattr(process, signal)()
        process.wait()
    assert try_lock(root / "lock", exclusive=True) is not None
