"""The whole way: a client, the API as a process, Valkey, and vLLM's own OpenAI server over a tiny random model.

One vLLM server and one API for all tests of the package. The test registers the replica in the deployment store, as a
serving process does.
"""

import asyncio
import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.contracts.deployment import Deployment, DeploymentRequest, DeploymentState, Replica
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.conftest import RedisServer
from tests.support.keys import key_line, key_text, write_keys
from tests.support.patient import connect_patiently
from tests.support.ports import free_port
from workers.engine.environment import child_environment

ROOT = Path(__file__).resolve().parents[4]
VERSION = "cal-0123456789abcdef"
KEY = key_text("app")
QUIET_KEY = key_text("quiet")  # its traffic is never scored again
CONTEXT = 4096


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code < 500:
                return
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group, then SIGKILL: vLLM's engine is a child of its server."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@pytest.fixture(scope="session")
def vllm_port(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Path]) -> Iterator[int]:
    """vLLM's OpenAI server, its model called `served` there."""
    model = tiny("llama", max_position_embeddings=CONTEXT)
    port = free_port()
    log = tmp_path_factory.mktemp("vllm") / "log"
    arguments = {
        "model": model,
        "served-model-name": "served",
        "host": "127.0.0.1",
        "port": port,
        "max-model-len": CONTEXT,
        "max-num-seqs": 16,
        "kv-cache-memory-bytes": 64 * 1024 * 1024,
        "tool-call-parser": "hermes",
        # A model of random weights would go on with white space for ever.
        "structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += ["--enable-auto-tool-choice"]
    command += [*(f"--{name}={value}" for name, value in arguments.items())]
    environment = child_environment() | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True, cwd=ROOT)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log, 600)
        yield port
    finally:
        end(process)


class StatusServer:
    """Stands for the engine's door. Plain vLLM has no such counter; the one of the serving process is tested there."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = json.dumps({"nonfinite": outer.broken}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Service:
    """The running whole."""

    url: str
    settings: Settings
    redis: RedisServer
    vllm_url: str
    door: StatusServer
    log: Path
    pid: int  # of the API

    @asynccontextmanager
    async def store(self) -> AsyncIterator[DeploymentStore]:
        client = connect_patiently(self.settings)
        try:
            yield DeploymentStore(client, self.settings)
        finally:
            await client.aclose()

    async def deploy(self, name: str, *replicas: Replica, shadow_rate: float = 0.0, **fields: object) -> Deployment:
        """A deployment with these replicas; one of vLLM where none are given."""
        async with self.store() as store:
            request = DeploymentRequest.model_validate(
                {"name": name, "model": {"model": "tiny"}, "reference": {"model": "tiny"}, "shadow_rate": shadow_rate}
                | fields
            )
            for of_a_first_try in await store.list():
                if of_a_first_try.name == name:
                    await store.delete(of_a_first_try.id)
                    for replica in await store.replicas(of_a_first_try.id):  # until they leave, it keeps its name
                        await store.leave(of_a_first_try.id, replica.id)
                    await store.settle(of_a_first_try.id)
            made = await store.create(request)
            for replica in replicas or (self.replica(),):
                await store.register(made.id, replica)
            return await store.get(made.id)

    def replica(self, name: str = "serve-0", url: str | None = None) -> Replica:
        return Replica(
            id=name,
            state=DeploymentState.READY,
            url=self.vllm_url if url is None else url,
            engine_url=self.door.url,
            versions=("identity", VERSION),
        )

    def openai(self, key: str = KEY, **options: object) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, **options)  # type: ignore[arg-type]

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the API's own metrics."""
        text = httpx.get(f"{self.url}/metrics", headers={"authorization": f"Bearer {KEY}"}, timeout=30).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    def vllm(self, name: str, **labels: str) -> float:
        """The sample of vLLM's own metrics that is called so and has these labels, of its one model and engine."""
        for family in text_string_to_metric_families(httpx.get(f"{self.vllm_url}/metrics", timeout=30).text):
            for sample in family.samples:
                if sample.name == f"vllm:{name}" and labels.items() <= sample.labels.items():
                    return sample.value
        raise AssertionError("vLLM does not tell")

    def generated(self) -> float:
        """Tokens that vLLM has generated. A counter tells more surely than the gauge of running requests, which lags
        behind, and which a generation may pass between two looks."""
        return self.vllm("generation_tokens_total")

    async def until_begun(self, before: float) -> None:
        """Waits until vLLM has generated more than these tokens; two minutes at most."""
        deadline = time.monotonic() + 120
        while self.generated() == before:
            assert time.monotonic() < deadline, "vLLM never begins"
            await asyncio.sleep(0.05)

    async def until_still(self, before: float) -> float:
        """Waits until vLLM has generated more than these tokens and generates no more; how many more."""
        found = [-1.0, before]
        while found[-1] != found[-2] or found[-1] == before:
            assert len(found) < 120, "vLLM goes on for a client that left"
            await asyncio.sleep(0.5)
            found.append(self.generated())
        return found[-1] - before

    async def until_idle(self) -> None:
        """Waits until vLLM generates nothing; two minutes at most."""
        before, deadline = -1.0, time.monotonic() + 120
        while (now := self.generated()) != before:
            assert time.monotonic() < deadline, "vLLM never rests"
            before = now
            await asyncio.sleep(0.5)


@contextlib.contextmanager
def running_api(home: Path, vllm_url: str) -> Iterator[Service]:
    """The API as a process, before a replica at `vllm_url`."""
    redis = RedisServer(home)
    redis.start()
    home.joinpath("models.toml").write_text("")
    keys = write_keys(home / "keys", key_line("app", "admin"), key_line("quiet", "inference", "no-shadow"))
    port = free_port()
    given = {
        "HEMOSTAT_HOME": str(home),
        "HEMOSTAT_REDIS_URL": redis.url,
        "HEMOSTAT_PORT": str(port),
        "HEMOSTAT_API_KEYS_FILE": str(keys),
        "HEMOSTAT_REQUESTS_PER_MINUTE": "1000000",
        "HEMOSTAT_SSE_HEARTBEAT_S": "0.5",
        "HEMOSTAT_GATEWAY_MAX_IN_FLIGHT": "8",
        "HEMOSTAT_GATEWAY_MAX_QUEUED": "2",
        "HEMOSTAT_GATEWAY_OWNER_SHARE": "1",
        # No test here waits for these: what they do is tested in tests/unit/app/gateway. On a busy machine eight long
        # generations take more than a minute, and a request behind them must not be turned away for it.
        "HEMOSTAT_GATEWAY_QUEUE_TIMEOUT_S": "300",
        "HEMOSTAT_GATEWAY_MAX_BODY_BYTES": "1000000",
        "HEMOSTAT_GATEWAY_READ_TIMEOUT_S": "300",
        "HEMOSTAT_GATEWAY_WRITE_TIMEOUT_S": "600",
    }
    settings = Settings(home=home, redis_url=redis.url, replica_lease_s=3600)
    log = home / "api.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "app.main"],
            env={**os.environ, **given},
            stdout=out,
            stderr=out,
            cwd=ROOT,
            start_new_session=True,
        )
    door = StatusServer()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/livez", process, log, 120)
        yield Service(url, settings, redis, vllm_url, door, log, process.pid)
    finally:
        end(process)
        door.close()
        redis.stop()


@pytest.fixture(scope="session")
def api_process(tmp_path_factory: pytest.TempPathFactory, vllm_port: int) -> Iterator[Service]:
    with running_api(tmp_path_factory.mktemp("gateway") / "home", f"http://127.0.0.1:{vllm_port}") as made:
        yield made


@pytest.fixture
def service(api_process: Service) -> Service:
    api_process.door.broken = False
    api_process.door.asked.clear()
    return api_process
