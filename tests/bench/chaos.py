"""Random deaths under load: `make chaos SEED=1 KILLS=25`. Appends a row to chaos.csv; 1 if an invariant broke.

Three jobs and eight chat streams run while a seeded schedule kills (-9), freezes (SIGSTOP, then SIGCONT) and restarts
(SIGTERM) the processes of a real `hemostat up`. So that a kill costs seconds, leases are short: a freeze lasts 5 to
12 s, and each lease and silence that it has to outlast 3 to 5 s. `--freeze-s 40 --default-leases` has those of a
service, 10 to 30 s.

What must hold at the end, when all is left in peace:

- each accepted job ended exactly once, as succeeded or for the death of its own process; nobody else's job is there
- the report of one that succeeded is that of an undisturbed run, but for ids, times and attempts
- each stream ended with [DONE] or an error event, or was refused, unless the API that served it ended
- no key in Redis without its record, no half-written file below the home, no process left
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from app.jobs import keys
from tests.bench.fleet import JOBS, Fleet, Load
from tests.support.worker import wait_for

CSV: Final = Path(__file__).with_suffix(".csv")
FIELDS: Final = ("seed", "kills", "violations", "jobs", "succeeded", "streams", "done", "seconds")
SHORT_LEASES: Final[dict[str, Any]] = {
    "redelivery_s": 3.0,
    "replica_lease_s": 3.0,
    "replica_renew_s": 0.5,
    "api_silence_s": 5.0,
    "drain_s": 2.0,
    "cancel_grace_s": 2.0,
}
# Deaths come in bursts, so that what recovers is struck as well; jobs and streams need the calm between.
BURST: Final = 0.7
BURST_GAP_S: Final = (0.1, 1.5)
CALM_GAP_S: Final = (3.0, 8.0)
# How often each dies: so that there are jobs and streams between two deaths of what takes seconds to start.
WEIGHTS: Final = {"worker": 2, "child": 1, "api": 3, "agent": 1, "replica": 1, "shadow": 3, "valkey": 3}
ACTIONS: Final = ("kill", "kill", "freeze", "restart")
PATIENCE_S: Final = 400.0
CHECKPOINTS: Final = 600_000  # bytes: two of the four that the jobs make, so that they are made again and again
# What a job may fail with here: its child was killed, or the worker was, each time it was tried.
EXCUSED: Final = frozenset({"engine_out_of_memory", "engine_failed", "worker_lost"})
Json = dict[str, Any]


# --- deaths


class Deaths:
    """The schedule: which process dies how, and when."""

    def __init__(self, fleet: Fleet, seed: int, freeze_s: tuple[float, float]) -> None:
        self._fleet, self._draw, self._freeze_s = fleet, random.Random(seed), freeze_s
        self._frozen: dict[psutil.Process, float] = {}

    async def run(self, kills: int) -> None:
        """So many deaths, and every frozen process goes on."""
        done = 0
        while done < kills:
            gap_s = BURST_GAP_S if self._draw.random() < BURST else CALM_GAP_S
            await self._pause(self._draw.uniform(*gap_s))
            (role,) = self._draw.choices(list(WEIGHTS), list(WEIGHTS.values()))
            action = self._draw.choice(ACTIONS)
            victim = self._fleet.process(role)
            if victim is not None and self._strike(victim, role, action):
                done += 1
        while self._frozen:
            await self._pause(0.2)

    def _strike(self, victim: psutil.Process, role: str, action: str) -> bool:
        with contextlib.suppress(psutil.Error):
            if action == "freeze":
                seconds = self._draw.uniform(*self._freeze_s)
                victim.suspend()
                self._frozen[victim] = time.monotonic() + seconds
                tell(f"{role} {victim.pid} is frozen for {seconds:.1f} s")
            else:
                victim.send_signal(signal.SIGKILL if action == "kill" else signal.SIGTERM)
                tell(f"{role} {victim.pid} gets {'SIGKILL' if action == 'kill' else 'SIGTERM'}")
            return True
        return False

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            for process in [one for one, due in self._frozen.items() if now >= due]:
                del self._frozen[process]
                with contextlib.suppress(psutil.Error):
                    process.resume()
            await asyncio.sleep(0.05)


def tell(text: str) -> None:
    """One line with the time."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


# --- what must hold


# Which job, workers and attempt made it, when, how long that took, and what it found there already.
VOLATILE: Final = frozenset({"job", "by", "shared", "resumed_windows", "reference_from_store"})


TIMES: Final = re.compile(r"^seconds|_at$")


def essence(value: Any) -> Any:
    """A report without ids, times and attempts."""
    if isinstance(value, dict):
        kept = {name for name in value if name not in VOLATILE and not TIMES.search(name)}
        return {name: essence(value[name]) for name in kept}
    return [essence(inner) for inner in value] if isinstance(value, list) else value


def differences(left: Any, right: Any, at: str = "") -> list[str]:
    """Paths where two JSON values differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        names = sorted(left.keys() | right.keys())
        return [path for name in names for path in differences(left.get(name), right.get(name), f"{at}/{name}")]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [path for index, (one, other) in pairs for path in differences(one, other, f"{at}/{index}")]
    return [] if left == right else [at]


class Judge:
    """Looks at a service that is left in peace, and tells what is wrong."""

    def __init__(self, fleet: Fleet, oracles: dict[str, Json], load: Load) -> None:
        self._fleet, self._oracles, self._load = fleet, oracles, load
        self.wrong: list[str] = []
        self.succeeded = 0

    def look(self) -> None:
        """At jobs, keys and files."""
        accepted = self._load.accepted
        with self._fleet.redis() as client:
            listed = set(client.zrange(keys.INDEX, 0, -1))
            other = listed ^ set(accepted)
            self._claim(not other, f"jobs that nobody knows, or that are lost: {other}")
            for job_id, name in accepted.items():
                self._job(job_id, name)
            ended = sum(int(count) for count in client.hvals(keys.FINISHED))
            self._claim(ended == len(accepted) + len(JOBS), f"{ended} ends of {len(accepted)} jobs were counted")
            self._keys(client, set(accepted))
        self._files(set(accepted))

    def _claim(self, holds: bool, told: str) -> None:
        if not holds:
            self.wrong.append(told)

    def _job(self, job_id: str, name: str) -> None:
        events = httpx.get(f"{self._fleet.url}/v1/diagnosis/jobs/{job_id}/events", timeout=60).text
        ends = events.count("event: end\n")
        self._claim(ends == 1, f"{job_id} ended {ends} times")
        job = self._fleet.get(f"/v1/diagnosis/jobs/{job_id}")
        if job is None or job["status"] not in {"succeeded", "failed"}:
            self.wrong.append(f"{job_id} is {job and job['status']}")
        elif job["status"] == "failed":
            self._claim(job["error"]["code"] in EXCUSED, f"{job_id} failed: {job['error']}")
        else:
            self.succeeded += 1
            report = self._fleet.get(job["report_url"])
            if report is None:
                self.wrong.append(f"{job_id} has no report that can be read")
            else:
                found = differences(essence(report), self._oracles[name])
                self._claim(not found, f"{job_id} ({name}) differs from an undisturbed run at {found[:8]}")

    def _keys(self, client: Any, known: set[str]) -> None:
        of_jobs = tuple(name("") for name in (keys.job, keys.events, keys.tail))
        for key in client.scan_iter(count=1000):
            orphan = key.startswith(of_jobs) and key.rpartition(":")[2] not in known
            self._claim(not orphan, f"{key} has no record")
        untidy = client.smembers(keys.UNTIDY)
        self._claim(not untidy, f"jobs that were not tidied: {untidy}")
        for status in ("queued", "running", "cancelling"):
            left = client.zcard(f"{keys.PREFIX}status:{status}")
            self._claim(left == 0, f"{left} jobs are listed as {status}")

    def _files(self, known: set[str]) -> None:
        jobs = self._fleet.home / "jobs"
        kept = [file.name for file in (self._fleet.home / "requests").iterdir()]
        self._claim(not kept, f"requests of jobs that have ended, or never were: {kept}")
        for folder in jobs.iterdir() if jobs.is_dir() else ():
            self._claim(folder.name in known, f"files of a job that nobody knows: {folder.name}")
            names = [entry.name for entry in folder.iterdir()]
            whole = len(names) == 1 and (folder / names[0] / "report.json").is_file()
            self._claim(whole, f"{folder.name} has left {names}")
        for file in self._fleet.home.rglob("*"):
            name = file.name
            half = name.endswith((".partial", ".tmp")) or (name.startswith(".") and any(c.isdigit() for c in name))
            self._claim(not half, f"half-written: {file.relative_to(self._fleet.home)}")
            if file.suffix == ".json":
                try:
                    json.loads(file.read_bytes())
                except ValueError:
                    self.wrong.append(f"no JSON: {file.relative_to(self._fleet.home)}")


# --- a run


async def chaos(fleet: Fleet, seed: int, kills: int, freeze_s: tuple[float, float]) -> Json:
    """One run over a service that is up: its row, and what is wrong."""
    began = time.monotonic()
    oracles = {name: essence(await undisturbed(fleet, body)) for name, body in JOBS.items()}
    tell(f"undisturbed reports after {time.monotonic() - began:.0f} s")
    struck = time.monotonic()
    load = Load(fleet, jobs=3, streams=8)
    await asyncio.sleep(2.0)
    await Deaths(fleet, seed, freeze_s).run(kills)
    tell(f"{kills} deaths after {time.monotonic() - struck:.0f} s; all is left in peace")
    await load.end(PATIENCE_S)
    await asyncio.to_thread(fleet.wait_until_serving)
    last = Load(fleet, jobs=0, streams=1)
    await last.end(PATIENCE_S)
    judge = Judge(fleet, oracles, load)
    await asyncio.to_thread(settle, fleet)
    judge.look()
    wrong = [*load.wrong, *load.streams.wrong, *last.wrong, *judge.wrong]
    wrong += [] if last.streams.ends == {"done": 1} else [f"a stream after all was {dict(last.streams.ends)}"]
    tell(f"jobs {len(load.accepted)}, streams {dict(load.streams.ends)}")
    return {
        "seed": seed,
        "kills": kills,
        "wrong": wrong,
        "jobs": len(load.accepted),
        "succeeded": judge.succeeded,
        "streams": load.streams.ends.total(),
        "done": load.streams.ends["done"],
        "seconds": round(time.monotonic() - struck),
    }


async def undisturbed(fleet: Fleet, body: Json) -> Json:
    """The report of a job that nothing disturbs; the job is deleted."""
    async with httpx.AsyncClient(base_url=fleet.url, timeout=60) as http:
        job = (await http.post("/v1/diagnosis/jobs", json=body)).raise_for_status().json()
        deadline = time.monotonic() + PATIENCE_S
        while job["status"] not in {"succeeded", "failed"}:
            assert time.monotonic() < deadline, job
            await asyncio.sleep(0.2)
            job = (await http.get(f"/v1/diagnosis/jobs/{job['id']}")).raise_for_status().json()
        assert job["status"] == "succeeded", job
        report: Json = (await http.get(job["report_url"])).raise_for_status().json()
        (await http.delete(f"/v1/diagnosis/jobs/{job['id']}")).raise_for_status()
        return report


def settle(fleet: Fleet) -> None:
    """Waits until what ended is tidied up: a sweep of the service removes what a job left after its end, and a request
    that never became a job, within a minute."""

    def tidy() -> bool:
        time.sleep(0.5)
        with fleet.redis() as client:
            return not client.exists(keys.UNTIDY) and not any((fleet.home / "requests").iterdir())

    with contextlib.suppress(AssertionError):  # what is left is told by the judge
        wait_for(tidy, what="end of tidying up")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--freeze-s", type=float, default=12.0, help="the longest; the shortest is 0.4 of it")
    parser.add_argument("--default-leases", action="store_true")
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--logs", type=Path, help="where the logs of a run with violations go")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hemostat-chaos-") as folder:
        settings = {} if given.default_leases else SHORT_LEASES
        fleet = Fleet(Path(folder), max_attempts=10, checkpoint_budget_bytes=CHECKPOINTS, **settings)
        try:
            fleet.start()
            tell("up")
            freeze_s = (0.4 * given.freeze_s, given.freeze_s)
            row = asyncio.run(chaos(fleet, given.seed, given.kills, freeze_s))
            wrong = row.pop("wrong")
            status = fleet.stop()
            wrong += [f"hemostat up ended with {status}"] if status else []
            with contextlib.suppress(AssertionError):
                wait_for(lambda: not fleet.family(), what="end of all processes", timeout_s=20)
            wrong += [f"left: {' '.join(one.cmdline())}" for one in fleet.family()]
            if wrong and given.logs is not None:
                fleet.keep_logs(given.logs)
        finally:
            fleet.kill()
    for line in wrong:
        tell(f"VIOLATION {line}")
    append(given.csv, row | {"violations": len(wrong)})
    tell(f"seed {given.seed}: {given.kills} kills, {len(wrong)} violations")
    return 1 if wrong else 0


def append(file: Path, row: Json) -> None:
    """One more row of the CSV."""
    fresh = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    sys.exit(main())
