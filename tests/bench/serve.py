"""`make bench-serve`: our server against plain vLLM, and writes tests/bench/results/PROCESSOR.csv.

All servers run at once, from the same checkpoint (the demo model at 4 bits) and with the same arguments; only one is
asked at a time, and the others are stopped (SIGSTOP) meanwhile: of vLLM's two processes one asks again and again
whether the other has something to say, also when nobody wants anything. A ratio is that of two runs one after the
other, the order changing from pair to pair; the CSV has the median of the pairs and the limits of all of them. Requests
are greedy and of fixed length, so every run draws the same number of tokens. Nothing else should run on the machine.
`python -m tests.bench.serve PART …` runs some parts and leaves the rows of the others as they are; `--quick` only shows
that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from scipy import stats

from app.contracts.blocks import RANK
from app.contracts.request import CandidateModel
from app.models.checkpoint import CheckpointInfo, inspect
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.bench import processor
from tests.bench.rows import Row, merged, read, write
from tests.bench.run import results_file
from tests.bench.serve_gateway import through_gateway
from tests.bench.serve_load import Load, Sampled, Stream, completions, percentile, streams
from tests.bench.serve_shadow import ShadowBeside, keep_profile, shadow_beside
from tests.support.ports import free_port
from tests.support.repairs import PARTS, random_factors, save_adapter
from workers.calibrators import storage
from workers.calibrators.blocks import NO_LIMIT, BlockCorrection, Blocks
from workers.engine.repair import attach
from workers.engine.serving.arguments import (
    IN_PROCESS,
    ServerPlan,
    cache_bytes,
    command,
    has_room_for_single_rows,
    server_arguments,
    server_environment,
)
from workers.engine.serving.child import ServerProcess, read_port
from workers.engine.serving.config import ServingConfig
from workers.surgery.import_gguf import demo_gguf, import_gguf
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Throughput = Callable[[], Awaitable[float]]
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / ".cache" / "smollm2-135m"
SOURCE = "smollm2"
NAME = "bench"
VERSION = "cal-0000000000000001"
# Requests of a client one after the other: what arrives while others generate is then a part of every run alike.
# Answers of usual length: before the last event of one the gateway asks the engine whether it had to end it.
ROUNDS, ANSWER_TOKENS = 2, 128
# The 99th percentile of a pair hangs on which prompts happened to be read in one step: it scatters by ten milliseconds.
GATEWAY_PAIRS = 15
# And of one beside a shadow process: some runs must have a request to score at all, of which one in a hundred is drawn.
SHADOW_ROUNDS = 4
# Tokens of prompt and answer together.
LENGTH = 1024
RECIPE = [{"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}]


@dataclass(frozen=True)
class Size:
    """How much is run."""

    pairs: int
    tokens: int
    clients: tuple[int, ...]


WHOLE = Size(pairs=5, tokens=48, clients=(1, 8, 32))
QUICK = Size(pairs=1, tokens=8, clients=(1, 8))


def profile(width: int, layers: int) -> Blocks:
    """Corrections after each block with the rank of a usual fit, and small arbitrary numbers."""
    generator = torch.Generator().manual_seed(0)

    def correction() -> BlockCorrection:
        down_RD = torch.randn(RANK, width, generator=generator) / width
        up_DR = torch.randn(width, RANK, generator=generator) / width
        return BlockCorrection(down_RD, up_DR, torch.zeros(width), torch.tensor(NO_LIMIT))

    return Blocks({layer: correction() for layer in range(layers)}, layers=layers, hidden_size=width)


def recipe_of(steps: list[dict[str, Any]]) -> Recipe:
    """The steps as a recipe."""
    return CandidateModel.model_validate({"model": SOURCE, "recipe": steps}).recipe


class Bench:
    """Both servers, and what is asked of them. `machine`: the row that says on which processor."""

    def __init__(self, size: Size, home: Path, machine: Row) -> None:
        self.size = size
        self.home = home
        self.settings = Settings(home=home)
        self.rows: list[Row] = [machine]
        self._servers: list[ServerProcess] = []

    def add(self, case: str, metric: str, value: float, unit: str) -> None:
        self.rows.append(Row("serve", case, metric, value, unit))
        sys.stderr.write(f"  {case:16} {metric:28} {value:12.5g} {unit}\n")

    async def start(self, stack: AsyncExitStack) -> None:
        """Makes the model and starts both servers."""
        if not (MODEL / "model.safetensors").is_file():
            import_gguf(demo_gguf(), MODEL)
        store = CheckpointStore(self.home / "checkpoints", 1 << 40)
        self.info = inspect(apply(inspect(MODEL), recipe_of(RECIPE), device="cpu", store=store).path)
        self.calibrator = profile(self.info.hidden_size, self.info.layers)
        storage.save(self.calibrator, self.home / "profiles" / VERSION)
        self.config = ServingConfig(
            deployment=NAME,
            architecture=self.info.architecture,
            single_rows_apart=has_room_for_single_rows(
                self.info,
                self.settings,
                dtype="bfloat16",
                kv_cache_bytes=self._cache,
                total=psutil.virtual_memory().total,
            ),
            profiles=self.home / "profiles",
            versions_file=self.home / "versions.json",
            hidden=self.home / "hidden",
            door_file=self.home / "door.port",
        )
        (self.home / "serving.json").write_text(self.config.model_dump_json())
        self.config.versions_file.write_text(f'{{"versions": ["{VERSION}"]}}')
        self.plain = await self._server(hooked=False)
        stack.push_async_callback(self.plain.end)
        self.ours = await self._server(hooked=True)
        stack.push_async_callback(self.ours.end)

    @property
    def _cache(self) -> int:
        total = psutil.virtual_memory().total
        found = cache_bytes(self.info, self.settings, dtype="bfloat16", max_model_len=LENGTH, total=total)
        return min(found, 1 << 30)

    async def _server(
        self, *, hooked: bool, in_process: bool = True, info: CheckpointInfo | None = None, **variables: str
    ) -> ServerProcess:
        port, served = free_port(), info or self.info
        plan = ServerPlan(NAME, served, MODEL, "bfloat16", "cpu", "127.0.0.1", port, LENGTH, self._cache, hooked=hooked)
        file = self.home / "serving.json"
        if info is not None:  # a door of its own
            file = self.home / f"serving.{port}.json"
            config = self.config.model_copy(update={"door_file": self.home / f"door.{port}"})
            file.write_text(config.model_dump_json())
        environment = server_environment(file if hooked else None, device="cpu") | variables
        started = time.perf_counter()
        arguments = server_arguments(plan, self.settings)
        if not in_process:
            place = arguments.index(IN_PROCESS)
            del arguments[place - 1 : place + 1]
        with self._alone(None):  # what starts has the machine for itself, too
            server = await ServerProcess.start(command(arguments, os.getpid()), environment, f"http://127.0.0.1:{port}")
            await server.until_healthy(NAME)
        self._servers.append(server)
        if in_process and info is None:
            self.add("ours" if hooked else "plain", "start", time.perf_counter() - started, "s")
        return server

    @contextmanager
    def _alone(self, server: ServerProcess | None) -> Iterator[None]:
        """Stops all others for the length of a `with`."""
        stopped: list[int] = []
        try:
            for one in self._servers:
                if one is not server:
                    os.killpg(one.pid, signal.SIGSTOP)
                    stopped.append(one.pid)
            yield
        finally:
            for group in stopped:
                with suppress(ProcessLookupError):  # one that has ended keeps none of the others stopped
                    os.killpg(group, signal.SIGCONT)

    def load(self, clients: int, **extra: object) -> Load:
        return Load(NAME, clients, self.size.tokens, extra)

    async def ratio(
        self,
        case: str,
        base: tuple[ServerProcess, Throughput],
        other: tuple[ServerProcess, Throughput],
        shadow: ShadowBeside | None = None,
    ) -> None:
        """Throughput of `other` over that of `base`, each of its server alone, over interleaved pairs. `shadow`: runs
        beside `other`, and is stopped beside `base`.
        """

        async def drawn(of: tuple[ServerProcess, Throughput]) -> float:
            with self._alone(of[0]):
                if shadow is None:
                    return await of[1]()
                (shadow.go_on if of is other else shadow.stop)()
                try:
                    return await of[1]()
                finally:
                    shadow.go_on()

        await drawn(base)
        await drawn(other)  # neither is cold
        ratios, plain, changed = [], [], []
        for pair in range(self.size.pairs):
            first, second = (base, other) if pair % 2 == 0 else (other, base)
            one, two = await drawn(first), await drawn(second)
            before, after = (one, two) if pair % 2 == 0 else (two, one)
            plain.append(before)
            changed.append(after)
            ratios.append(after / before)
        self.add(case, "throughput_ratio", statistics.median(ratios), "ratio")
        self.add(case, "throughput_ratio_low", min(ratios), "ratio")
        self.add(case, "throughput_ratio_high", max(ratios), "ratio")
        self.add(case, "plain_tokens_per_second", statistics.median(plain), "tokens/s")
        self.add(case, "tokens_per_second", statistics.median(changed), "tokens/s")

    async def throughput(self) -> None:
        """Calibrated and off at each number of clients, and with one request in a hundred kept for the shadow."""
        for clients in self.size.clients:
            for case, version in (("calibrated", VERSION), ("off", "identity")):
                await self.ratio(
                    f"{case}_{clients}",
                    (self.plain, lambda clients=clients: completions(self.plain.url, self.load(clients))),
                    (
                        self.ours,
                        lambda clients=clients, version=version: completions(
                            self.ours.url, self.load(clients, hemostat_version=version)
                        ),
                    ),
                )
        most, sampled = max(self.size.clients), Sampled(100)
        await self.ratio(
            "shadow_1pct",
            (self.plain, lambda: completions(self.plain.url, self.load(most))),
            (
                self.ours,
                lambda: completions(self.ours.url, self.load(most, hemostat_version=VERSION), sampled=sampled),
            ),
        )

    async def shadow(self) -> None:
        """The same beside a shadow process that scores what was kept, on the same cores."""
        most = max(self.size.clients)
        rounds = SHADOW_ROUNDS if self.size is WHOLE else 1
        keep_profile(self.calibrator, self.info, self.home / "profiles" / VERSION)
        async with AsyncExitStack() as stack:
            with self._alone(None):
                shadow = await stack.enter_async_context(
                    shadow_beside(self.home, f"{NAME}-shadow", (SOURCE, MODEL), RECIPE, self.config.hidden)
                )

            async def kept(request: str, prompt: Sequence[int], output: Sequence[int]) -> None:
                await shadow.queue(request, prompt, output, VERSION)

            load, sampled = self.load(most, hemostat_version=VERSION), Sampled(100, kept)
            beside = (self.ours, lambda: completions(self.ours.url, load, sampled=sampled, rounds=rounds))
            without = (self.ours, lambda: completions(self.ours.url, load, rounds=rounds))
            plain = (self.plain, lambda: completions(self.plain.url, self.load(most), rounds=rounds))
            before = 0.0
            for case, base in (("shadow_scored_1pct", plain), ("shadow_over_none_1pct", without)):
                await self.ratio(case, base, beside, shadow)
                with self._alone(None):
                    await shadow.until_idle()
                    counted = (await shadow.counted())["hemostat_shadow_scored_requests_total"]
                self.add(case, "scored", counted - before, "requests")
                before = counted

    async def correction(self) -> None:
        """Our server with a correction over itself without: what it costs where plain vLLM differs by more."""
        for clients in self.size.clients:
            await self.ratio(
                f"calibrated_over_off_{clients}",
                (self.ours, lambda clients=clients: completions(self.ours.url, self._asks(clients, "identity"))),
                (self.ours, lambda clients=clients: completions(self.ours.url, self._asks(clients, VERSION))),
            )

    async def repair(self) -> None:
        """Packed weights with a repair of mean rank 16 beside them, over the same weights without. Its numbers are
        arbitrary: they change no time."""
        packed = [step | {"form": "packed"} for step in RECIPE]
        store = CheckpointStore(self.home / "checkpoints", 1 << 40)
        base = inspect(apply(inspect(MODEL), recipe_of(packed), device="cpu", store=store).path)
        factors = random_factors(MODEL, parts=(*PARTS, "v_proj"), ranks=(4, 16, 28))
        attach(base.path, save_adapter(self.home / "adapter", factors, scale=1.0), self.home / "repaired")
        without = await self._server(hooked=True, info=base)
        beside = await self._server(hooked=True, info=inspect(self.home / "repaired"))
        for clients in self.size.clients:
            await self.ratio(
                f"repair_over_packed_{clients}",
                (without, lambda clients=clients: completions(without.url, self._asks(clients, "identity"))),
                (beside, lambda clients=clients: completions(beside.url, self._asks(clients, "identity"))),
            )
        for server in (without, beside):
            self._servers.remove(server)
            await server.end()

    def _asks(self, clients: int, version: str) -> Load:
        return self.load(clients, hemostat_version=version)

    async def executors(self) -> None:
        """The model in the process that schedules, over vLLM's own choice, the model in another: once with all cores
        for both, and once as it comes, which leaves a core to the process that asks."""
        own: dict[str, dict[str, str]] = {
            "two_processes": {},
            "as_it_comes": {"OMP_NUM_THREADS": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "1"},
        }
        for case, variables in own.items():
            server = await self._server(hooked=False, in_process=False, **variables)
            try:
                for clients in self.size.clients:
                    await self.ratio(
                        f"{case}_{clients}",
                        (server, lambda clients=clients, server=server: completions(server.url, self.load(clients))),
                        (self.plain, lambda clients=clients: completions(self.plain.url, self.load(clients))),
                    )
            finally:
                self._servers.remove(server)
                await server.end()

    async def gateway(self) -> None:
        """What the gateway adds to the time between two tokens, and to that before the first."""
        most = max(self.size.clients)
        tokens = ANSWER_TOKENS if self.size is WHOLE else self.size.tokens
        door = read_port(self.config.door_file)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._alone(self.ours))
            url = await stack.enter_async_context(
                through_gateway(self.home, NAME, MODEL, self.ours.url, f"http://127.0.0.1:{door}")
            )
            gaps, firsts, lasts, ratios = [], [], [], []
            for pair in range(GATEWAY_PAIRS if self.size is WHOLE else self.size.pairs):
                urls = [self.ours.url, url] if pair % 2 == 0 else [url, self.ours.url]
                found: dict[str, tuple[list[Stream], float]] = {}
                for one in urls:
                    started = time.perf_counter()
                    seen = await streams(one, replace(self.load(most), tokens=tokens), rounds=ROUNDS)
                    found[one] = (seen, time.perf_counter() - started)
                direct, led = found[self.ours.url], found[url]
                gaps.append(1e3 * (_p99_gap(led[0]) - _p99_gap(direct[0])))
                firsts.append(1e3 * (_p99_first(led[0]) - _p99_first(direct[0])))
                lasts.append(1e3 * (_median_last(led[0]) - _median_last(direct[0])))
                ratios.append(direct[1] / led[1])
        case = f"gateway_{most}"
        self.add(case, "p99_added_ms", statistics.median(gaps), "ms")
        self.add(case, "p99_added_ms_low", min(gaps), "ms")
        self.add(case, "p99_added_ms_high", max(gaps), "ms")
        of_median = stats.quantile_test(gaps, p=0.5).confidence_interval(0.95)
        self.add(case, "p99_added_ms_median_low", float(of_median.low), "ms")
        self.add(case, "p99_added_ms_median_high", float(of_median.high), "ms")
        self.add(case, "pairs", len(gaps), "count")
        self.add(case, "p99_first_added_ms", statistics.median(firsts), "ms")
        self.add(case, "median_last_added_ms", statistics.median(lasts), "ms")
        self.add(case, "throughput_ratio", statistics.median(ratios), "ratio")

    async def rest(self) -> None:
        """Loading a profile, memory."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{read_port(self.config.door_file)}/metrics")).text
        counted = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}
        name = "hemostat_serving_profile_load_seconds"
        self.add("profile", "load_seconds", counted[f"{name}_sum"] / counted[f"{name}_count"], "s")
        size = sum(file.stat().st_size for file in (self.home / "profiles" / VERSION).iterdir())
        self.add("profile", "bytes", size, "bytes")
        resident = {name: _resident(server.pid) for name, server in (("plain", self.plain), ("ours", self.ours))}
        for case, value in resident.items():
            self.add(case, "resident", value, "bytes")
        self.add("ours", "resident_added", resident["ours"] - resident["plain"], "bytes")


def _resident(pid: int) -> float:
    """Of a process and its children, shared pages once (PSS)."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(one.memory_full_info().pss for one in family))


def _p99_gap(seen: list[Stream]) -> float:
    return percentile([gap for one in seen for gap in one.gaps], 0.99)


def _p99_first(seen: list[Stream]) -> float:
    return percentile([one.first for one in seen], 0.99)


def _median_last(seen: list[Stream]) -> float:
    return statistics.median(one.gaps[-1] for one in seen)


BENCHES = ("throughput", "correction", "repair", "shadow", "gateway", "rest", "executors")


async def run(size: Size, keep: Callable[[list[Row]], None], parts: Sequence[str] = BENCHES) -> list[Row]:
    """The named parts; `keep` gets the rows so far after each, so that none is lost where a later one fails."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(size, Path(folder), processor.here("serve", server_environment(None, device="cpu")))
        async with AsyncExitStack() as stack:
            await bench.start(stack)
            for part in parts:
                await getattr(bench, part)()
                keep(bench.rows)
    return bench.rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serve")
    parser.add_argument("--quick", action="store_true", help="see that it works; writes nothing")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(BENCHES)}; without any, all")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(BENCHES):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(BENCHES)}")
    if options.quick:
        rows = asyncio.run(run(QUICK, lambda rows: None, options.parts or BENCHES))
    else:
        file = results_file(processor.device(server_environment(None, device="cpu")))
        before = read(file) if file.exists() else []
        rows = asyncio.run(run(WHOLE, lambda rows: write(file, merged(before, rows)), options.parts or BENCHES))
    for row in rows:
        sys.stdout.write(f"{row.bench},{row.case},{row.metric},{row.value:.6g},{row.unit}\n")


if __name__ == "__main__":
    main()
