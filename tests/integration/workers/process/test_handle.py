"""The parent's handle on a real child."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.worker import gone, wait_for
from workers.process.handle import ChildProcess, ChildStartError
from workers.process.messages import Cancel, Done, Failed, Run, Stopped

HANDLERS = "tests.support.handlers:HANDLERS"


@pytest.fixture
async def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChildProcess]:
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path))
    process = await ChildProcess.start(HANDLERS)
    yield process
    await process.kill()
    assert gone(process.pid)


def job(attempt: int = 1, **metadata: str) -> Run:
    request = {
        "kind": "compare",
        "reference": {"model": "a"},
        "candidate": {"model": "b"},
        "text": {"source": "inline", "documents": [{"id": "d", "text": "x" * int(metadata.pop("text", "10"))}]},
        "metadata": metadata,
    }
    return Run(job="job", attempt=attempt, kind="compare", request=request)


async def ending(child: ChildProcess) -> Any:
    while (message := await asyncio.wait_for(child.receive(), 90)) is not None:
        if isinstance(message, Done | Failed | Stopped):
            return message
    return None


async def test_a_request_of_thirty_megabytes_gets_through(child: ChildProcess) -> None:
    await child.send(job(do="count", steps="1", text=str(30 * 1024 * 1024)))
    assert isinstance(await ending(child), Done)


async def test_the_environment_of_a_child_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path))
    for name in ("HEMOSTAT_REDIS_URL", "HEMOSTAT_REDIS_URL_FILE", "HF_TOKEN", "HEMOSTAT_API_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "hunter2")
    process = await ChildProcess.start(HANDLERS)
    try:
        environment = await asyncio.to_thread(Path(f"/proc/{process.pid}/environ").read_bytes)
    finally:
        await process.kill()
    assert f"HEMOSTAT_HOME={tmp_path}".encode() in environment
    assert b"hunter2" not in environment


async def test_a_cancel_for_another_attempt_is_not_heeded(child: ChildProcess) -> None:
    await child.send(job(attempt=2, do="count", steps="10", slice="0.05"))
    await child.send(Cancel(job="job", attempt=1))
    assert isinstance(await ending(child), Done)


async def test_a_cancel_that_comes_before_the_handler_begins_stops_it(child: ChildProcess) -> None:
    await child.send(job(do="count", steps="1000", slice="0.05"))
    await child.send(Cancel(job="job", attempt=1))
    assert isinstance(await ending(child), Stopped)


async def test_a_request_that_does_not_fit_is_a_failed_job(child: ChildProcess) -> None:
    run = job(do="count", steps="1")
    await child.send(run.model_copy(update={"request": run.request | {"kind": "compose"}}))
    assert isinstance(await ending(child), Failed)


async def test_stopping_closes_the_room(child: ChildProcess, tmp_path: Path) -> None:
    await child.send(job(do="count", steps="1"))
    await ending(child)
    await child.stop(60)
    assert child.returncode == 0
    assert "room closed" in (tmp_path / "trace").read_text()


async def test_it_protects_its_parent_and_its_documents(child: ChildProcess) -> None:
    own, adjusted = [
        int(await asyncio.to_thread(Path(f"/proc/{pid}/oom_score_adj").read_text)) for pid in ("self", child.pid)
    ]
    assert adjusted == max(500, own)  # a container may forbid less than it has
    assert psutil.Process(child.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert os.getpgid(child.pid) == child.pid
    assert child.resident_bytes() > 1024 * 1024


async def test_ctrl_c_in_its_group_does_not_end_it(child: ChildProcess) -> None:
    os.kill(child.pid, signal.SIGINT)
    await child.send(job(do="count", steps="1"))
    assert isinstance(await ending(child), Done)


async def test_a_dead_child_is_noticed_while_it_is_idle(child: ChildProcess) -> None:
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(90):
        while child.alive:  # noqa: ASYNC110 - it is another process that ends
            await asyncio.sleep(0.02)
    assert await child.receive() is None
    assert child.returncode == -signal.SIGKILL
    assert child.resident_bytes() == 0
    await child.send(Cancel(job="job", attempt=1))


async def test_a_child_that_does_not_come_up_is_told() -> None:
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ChildStartError, match="did not start"):
        await ChildProcess.start("tests.support.handlers:NO_SUCH_THING")
    with pytest.raises(ChildStartError, match="did not start"):
        await ChildProcess.start(HANDLERS, timeout_s=0.001)
    wait_for(lambda: set(psutil.Process().children(recursive=True)) <= before, what="end of the children")


async def test_nonsense_from_the_child_ends_it(child: ChildProcess) -> None:
    await child.send(job(do="babble"))
    assert await ending(child) is None
    assert gone(child.pid)
    # It was killed here; that must not look like lack of memory.
    assert child.returncode is None
