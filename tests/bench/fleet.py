"""A whole service under load: `hemostat up` with a shadowed deployment of a tiny model, jobs and chat streams.

For what runs for minutes: the load goes on until it is told to end, and keeps what came of each job and stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import redis

from app.jobs.connection import embedded_socket
from app.settings import Settings
from tests.support.ports import free_port
from tests.support.tiny import make_checkpoint
from tests.support.worker import ROOT, environment, wait_for

Json = dict[str, Any]
START_S: Final = 400  # on a busy machine
SILENCE_S: Final = 120.0  # after which a stream is taken for hung; longer than any freeze
API_END_S: Final = 3.0  # of an API beyond the time that it gives its requests
ROLES: Final = {
    "worker": "workers.main",
    "child": "workers.process.child",
    "api": "app.main",
    "agent": "app.deployments.agent",
    "replica": "workers.serve",
    "shadow": "workers.shadow",
    "valkey": "valkey-server",
}
TEXT: Final = {
    "source": "inline",
    "documents": [
        {"id": f"d{number}", "text": f"The lazy dog number {number} jumps over the quick brown fox. " * 8}
        for number in range(24)
    ],
}
COMMON: Final[Json] = {"reference": {"model": "tiny"}, "text": TEXT, "window": 64}
JOBS: Final[dict[str, Json]] = {
    "rounded": COMMON
    | {
        "kind": "compare",
        "candidate": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 32}]},
    },
    "pruned": COMMON
    | {
        "kind": "compare",
        "candidate": {"model": "tiny", "recipe": [{"type": "prune.magnitude", "sparsity": 0.3}]},
    },
    "swept": COMMON
    | {
        "kind": "sweep",
        "candidate": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 8, "group_size": 32}]},
        "knobs": [{"step": 0, "field": "bits", "values": [8, 6, 4]}],
    },
}


@dataclass
class Streams:
    """What came of the chat streams: how they ended, by how often, and those that ended as none may."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Fleet:
    """The service of one home."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        make_checkpoint(self.home / "tiny", seed=3, scale=5.0, max_position_embeddings=512)
        (self.home / "models.toml").write_text('[models.tiny]\npath = "tiny"\n')
        values: dict[str, Any] = {
            "home": self.home,
            "port": free_port(),
            "worker_metrics_port": free_port(),
            "deploy_demo": False,
            "requests_per_minute": 1_000_000,
            "share_serving": 0.1,
            "engine_kv_cache_bytes": 16 * 1024 * 1024,
            "engine_batch_tokens": 2048,
            "start_s": float(START_S),
        }
        self.settings = Settings(**(values | settings))
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.up: subprocess.Popen[bytes] | None = None

    # --- processes

    def start(self) -> None:
        """All of it, until it takes jobs and answers."""
        with (self.folder / "up.log").open("wb") as log:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "up"],
                cwd=ROOT,
                env=environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: self.get("/readyz") is not None, what="service", timeout_s=START_S)
        request = {
            "name": "bot",
            "model": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]},
            "reference": {"model": "tiny"},
            "calibration": "off",
            "shadow_rate": 0.5,
        }
        made = httpx.post(f"{self.url}/v1/deployments", json=request, timeout=60)
        assert made.status_code == 201, made.text
        self.wait_until_serving()

    def wait_until_serving(self) -> None:
        """Until a replica answers."""

        def serves() -> bool:
            time.sleep(0.3)
            found = self.get("/v1/deployments/bot") or {"running": []}
            return any((one["role"], one["state"]) == ("serve", "ready") for one in found["running"])

        wait_for(serves, what="replica", timeout_s=START_S)

    def get(self, path: str) -> Any:
        """The JSON of an answer 200, else None."""
        with contextlib.suppress(httpx.TransportError, ValueError):
            answer = httpx.get(f"{self.url}{path}", timeout=30)
            if answer.status_code == 200:
                return answer.json()
        return None

    def process(self, role: str) -> psutil.Process | None:
        """The process of a role, if there is one now."""
        assert self.up is not None
        with contextlib.suppress(psutil.Error):
            for one in psutil.Process(self.up.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if ROLES[role] in (one.name(), *one.cmdline()) and one.status() != psutil.STATUS_ZOMBIE:
                        return one
        return None

    def family(self) -> list[psutil.Process]:
        """Every process that was started with this home in its environment."""
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get("HEMOSTAT_HOME") == str(self.home) and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
        return found

    def redis(self) -> redis.Redis:
        """A client of its Valkey."""
        return redis.Redis(unix_socket_path=str(embedded_socket(self.settings)), decode_responses=True)

    def stop(self) -> int:
        """Ends it in order. Answers the exit status."""
        assert self.up is not None
        if self.up.poll() is None:
            self.up.send_signal(signal.SIGINT)
        return self.up.wait(120)

    def kill(self) -> None:
        """Whatever is left."""
        if self.up is not None and self.up.poll() is None:
            self.up.kill()
            self.up.wait()
        for one in self.family():
            with contextlib.suppress(psutil.Error):
                one.kill()

    @property
    def logs(self) -> Iterator[Path]:
        """Logs of every process."""
        yield self.folder / "up.log"
        yield from self.home.glob("logs/*.log*")
        yield from self.home.glob("deployments/*/logs/*.log*")

    def keep_logs(self, folder: Path) -> None:
        """Copies the logs, for whoever looks for what went wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in self.logs:
            shutil.copy(log, folder / log.name)


class Load:
    """Jobs and streams until `end`: each of `jobs` tasks submits a job, waits for its end, and submits the next."""

    def __init__(self, fleet: Fleet, *, jobs: int, streams: int, remove: bool = False) -> None:
        self.accepted: dict[str, str] = {}  # id of each job that was accepted to its name in JOBS
        self.streams = Streams()
        self.wrong: list[str] = []
        self._fleet, self._remove = fleet, remove
        self._over = asyncio.Event()
        self._asking = [asyncio.create_task(self._submit(number), name=f"jobs {number}") for number in range(jobs)]
        self._chatting = [asyncio.create_task(self._chat(number), name=f"chat {number}") for number in range(streams)]
        self._http = httpx.AsyncClient(base_url=fleet.url, timeout=httpx.Timeout(30.0, read=SILENCE_S))

    async def end(self, patience_s: float) -> None:
        """No more begins; waits for what runs. What does not end is told in `wrong`."""
        self._over.set()
        tasks = [*self._asking, *self._chatting]
        _, pending = await asyncio.wait(tasks, timeout=patience_s)
        for task in pending:
            self.wrong.append(f"{task.get_name()} did not end within {patience_s:g} s")
            task.cancel()
        for task in set(tasks) - pending:
            task.result()
        await self._http.aclose()

    # --- jobs

    async def _submit(self, number: int) -> None:
        names = list(JOBS)
        turn = number
        while not self._over.is_set():
            name = names[turn % len(names)]
            turn += 1
            job_id = await self._accepted(name)
            if job_id is None:
                return
            self.accepted[job_id] = name
            while not await self._ended(job_id):  # noqa: ASYNC110 - the service is asked, no event tells
                await asyncio.sleep(0.3)
            if self._remove:
                await self._request("DELETE", f"/v1/diagnosis/jobs/{job_id}")

    async def _accepted(self, name: str) -> str | None:
        """Id of a submitted job. The same key is sent until there is an answer: it is one job, however often."""
        headers = {} if self._remove else {"Idempotency-Key": uuid.uuid4().hex}
        while True:
            answer = await self._request("POST", "/v1/diagnosis/jobs", json=JOBS[name], headers=headers)
            if answer is not None and answer.status_code == 202:
                return str(answer.json()["id"])
            if answer is not None and answer.status_code not in {409, 429, 503}:
                self.wrong.append(f"a submission was answered {answer.status_code}: {answer.text[:200]}")
            await asyncio.sleep(0.5)
            if self._over.is_set() and answer is not None and answer.status_code < 500:
                return None

    async def _ended(self, job_id: str) -> bool:
        answer = await self._request("GET", f"/v1/diagnosis/jobs/{job_id}")
        if answer is None or answer.status_code == 503:
            return False
        if answer.status_code != 200:
            self.wrong.append(f"{job_id} was answered {answer.status_code}: {answer.text[:200]}")
            return True
        return answer.json()["status"] in {"succeeded", "failed", "cancelled"}

    async def _request(self, method: str, path: str, **fields: Any) -> httpx.Response | None:
        try:
            return await self._http.request(method, path, **fields)
        except httpx.TransportError:
            return None

    # --- streams

    async def _chat(self, number: int) -> None:
        turn = 0
        while turn == 0 or not self._over.is_set():
            turn += 1
            api = self._fleet.process("api")
            end = await self._stream(f"Tell {number} of {turn}.")
            if end in {"broken off", "hung"} and await self._ends(api):
                end = "its API ended"
            self.streams.ends[end] += 1
            if end not in {"done", "error event", "refused", "unreachable", "its API ended"}:
                self.streams.wrong.append(f"a stream was {end} at {time.time():.1f}")
            if end != "done":
                await asyncio.sleep(0.5)

    async def _ends(self, api: psutil.Process | None) -> bool:
        """Whether an API has ended, or is ending: it closes its connections first."""
        until = time.monotonic() + self._fleet.settings.drain_s + API_END_S
        while not _gone(api, self._fleet.process("api")):
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.2)
        return True

    async def _stream(self, prompt: str) -> str:
        body = {
            "model": "bot",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 64,
            "stream": True,
            "temperature": 0.7,
        }
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    text = (await answer.aread()).decode(errors="replace")
                    return "refused" if answer.status_code in {429, 502, 503, 504} else f"answered {text[:200]}"
                async for line in answer.aiter_lines():
                    if line == "data: [DONE]":
                        return "done"
                    if line.startswith("data: ") and "error" in json.loads(line[6:]):
                        return "error event"
        except httpx.ReadTimeout:
            return "hung"
        except httpx.ConnectError:
            return "unreachable"
        except (httpx.TransportError, json.JSONDecodeError):  # it ended in the middle of a line
            pass
        return "broken off"


def _gone(before: psutil.Process | None, after: psutil.Process | None) -> bool:
    return before is None or after is None or before != after
