"""A worker is seen while driver and torch have not answered."""

import asyncio
import os

from app.jobs.connection import connect
from app.jobs.workers import living
from workers.engine import device
from workers.main import describe, with_device

# Torch starts as soon as it may.
SLOW = """
import pathlib, time
from types import SimpleNamespace
while not pathlib.Path({gate!r}).exists():
    time.sleep(0.02)
__version__ = "2.13.0+cu130"
version = SimpleNamespace(cuda="13.0")
cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "NVIDIA L4")
"""


async def test_a_worker_is_announced_as_starting_until_torch_has_answered(redis_server, tmp_path, monkeypatch):
    gate = tmp_path / "answer"
    (tmp_path / "torch.py").write_text(SLOW.format(gate=str(gate)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(device, "distribution", lambda: ("vllm", "0.32.0"))
    client, info = connect(redis_server.settings), describe(redis_server.settings, 8322)
    placing = asyncio.create_task(with_device(client, redis_server.settings, info))
    async with asyncio.timeout(60):
        found = []
        while not found:
            found = await living(client)
    assert [(one.id, one.starting, one.device) for one in found] == [(info.id, True, "")]
    assert not placing.done()
    gate.touch()
    placed = await placing
    await client.aclose()
    assert (placed.id, placed.starting, placed.device) == (info.id, False, "cuda")
