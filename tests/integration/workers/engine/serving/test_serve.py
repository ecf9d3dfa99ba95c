"""The real process: `python -m workers.serve` with Redis, a recipe, vLLM's server, and what becomes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.deployment import DeploymentState, Replica
from app.deployments.secret import headers_for
from app.models.registry import register
from tests.integration.conftest import RedisServer
from tests.integration.workers.engine.serving.conftest import Oracle
from tests.integration.workers.engine.serving.processes import PATIENCE_S, PROMPT, Service, complete, engine_of, family
from tests.support import hostile
from tests.support.blocks import corrections, hooked
from tests.support.processor import needs_avx512
from workers.calibrators import storage
from workers.calibrators.blocks import Blocks
from workers.calibrators.temperature import Temperature
from workers.engine.serving.config import ServingConfig
from workers.products import made_up

Tiny = Callable[..., Path]
VERSION = "cal-00000000000000aa"


@pytest.fixture(scope="module")
def service(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    redis = RedisServer(tmp_path_factory.mktemp("serve") / "home")
    redis.start()
    made = Service(redis, tiny("llama"))
    yield made
    for process in made.processes:
        for pid in family(process) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        process.wait()
    redis.stop()


@dataclass(frozen=True)
class First:
    """A replica that serves, `max_model_len` 128: its counters before anybody asked, and answers to one token."""

    replica: Replica
    counters: str
    answers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def first(service: Service) -> First:
    service.create("demo", max_model_len=128)
    _, replica = service.ready("demo")
    counters = httpx.get(replica.metrics_urls[0], timeout=PATIENCE_S).text
    return First(replica, counters, [complete(replica, prompt=[5], max_tokens=4) for _ in range(2)])


@pytest.fixture(scope="module")
def ready(first: First) -> Replica:
    return first.replica


@pytest.fixture(scope="module")
def overflowing(service: Service, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A deployment of weights that are finite, and logits beyond the largest number."""
    whole, folder = tiny("llama-untied"), tmp_path_factory.mktemp("models") / "overflowing"
    shutil.copytree(whole, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][:] = 3e38
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    register(service.settings.models_file, "overflowing", folder)
    service.create("overflowing", model={"model": "overflowing"}, reference={"model": "overflowing"})
    return "overflowing"


@pytest.fixture(scope="module")
def shared(service: Service) -> str:
    """A deployment whose replica others can reach, with HEMOSTAT_ADVERTISE_HOST."""
    service.create("shared", max_model_len=64)
    return "shared"


def test_a_replica_is_ready_when_it_has_answered_and_a_clients_first_prompt_may_have_one_token(first: First) -> None:
    tried = r"^vllm:prompt_tokens_total\{[^}]*\} 9\.0$"
    assert re.search(tried, first.counters, re.MULTILINE), "it was not tried before"
    one, again = first.answers
    assert one["usage"]["prompt_tokens"] == 1
    assert again["choices"][0]["text"] == one["choices"][0]["text"]


def test_it_serves_the_openai_api_under_the_deployments_name(service: Service, ready: Replica, tiny: Tiny) -> None:
    models = httpx.get(f"{ready.url}/v1/models", timeout=PATIENCE_S).json()
    assert [model["id"] for model in models["data"]] == ["demo"]
    assert models["data"][0]["max_model_len"] == 128
    answer = complete(ready, return_token_ids=True)
    assert answer["usage"]["completion_tokens"] == 6
    chat = httpx.post(
        f"{ready.url}/v1/chat/completions",
        json={"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3},
        timeout=PATIENCE_S,
    )
    assert chat.status_code == 200, chat.text
    assert "vllm:num_requests_running" in httpx.get(ready.metrics_urls[0], timeout=PATIENCE_S).text
    assert (
        'hemostat_serving_rows_total{calibrated="no",deployment="demo"}'
        in httpx.get(ready.metrics_urls[1], timeout=PATIENCE_S).text
    )


def test_the_process_that_schedules_runs_the_model(service: Service, ready: Replica) -> None:
    """A second one would keep asking the first, on a core of its own."""
    server = next(iter(psutil.Process(ready.pid).children()))
    names = [" ".join(child.cmdline()).strip() for child in server.children(recursive=True)]
    assert [name for name in names if name.startswith("VLLM::")] == ["VLLM::EngineCore"], names


def test_the_door_tells_of_a_step_while_it_runs(ready: Replica) -> None:
    answered = threading.Event()

    def ask() -> None:
        while not answered.is_set():
            complete(ready, max_tokens=100)

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + PATIENCE_S
    try:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not (step_s := client.get(f"{ready.engine_url}/livez").json()["step_s"]):
                assert time.monotonic() < deadline
    finally:
        answered.set()
        asking.join()
    assert 0 < step_s < PATIENCE_S
    # The engine runs once more, to let go of the request that has ended.
    while (told := httpx.get(f"{ready.engine_url}/livez", timeout=PATIENCE_S).json())["step_s"] is not None:
        assert time.monotonic() < deadline
    assert told == {"status": "ok", "step_s": None}


def test_a_promoted_version_is_loaded_without_a_restart_and_served(
    service: Service, ready: Replica, tiny: Tiny
) -> None:
    storage.save(Temperature(3.0), service.settings.home / "profiles" / VERSION)
    deployment = service.call(lambda store: store.get("demo"))
    service.call(lambda store: store.promote(deployment.id, VERSION, reason="a test", evidence={}))
    found = service.until("demo", lambda one: VERSION in one.versions)
    assert (found.pid, found.id) == (ready.pid, ready.id)
    shown = {}
    for version in ("identity", VERSION):
        answer = complete(ready, logprobs=5, return_token_ids=True, vllm_xargs={"hemostat_version": version})
        choice = answer["choices"][0]
        tokens = [*choice["prompt_token_ids"], *choice["token_ids"]]
        oracle = Oracle(tiny("llama"))
        calibrator = None if version == "identity" else Temperature(3.0)
        expected = oracle.logprobs(tokens, calibrator)[len(choice["prompt_token_ids"]) - 1 : -1]
        shown[version] = choice["logprobs"]["token_logprobs"]
        wanted = expected.gather(1, torch_column(choice["token_ids"]))[:, 0].tolist()
        assert shown[version] == pytest.approx(wanted, abs=0.15)  # the server computes in bfloat16
    assert shown["identity"] != shown[VERSION]


def torch_column(tokens: list[int]) -> Any:
    import torch

    return torch.tensor(tokens)[:, None]


@pytest.mark.parametrize(
    "extra",
    [{"hemostat_version": "cal-0123456789abcdef"}, {"hemostat_version": "../x"}, {"hemostat_request": "a/b"}],
)
def test_what_the_gateway_would_never_send_is_refused(ready: Replica, extra: dict[str, str]) -> None:
    body = {"model": "demo", "prompt": PROMPT, "max_tokens": 2, "vllm_xargs": extra}
    answer = httpx.post(f"{ready.url}/v1/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 400


def test_a_prompt_beyond_the_context_is_refused_and_serving_goes_on(ready: Replica) -> None:
    body = {"model": "demo", "prompt": [5] * 10_000, "max_tokens": 2}
    assert httpx.post(f"{ready.url}/v1/completions", json=body, timeout=PATIENCE_S).status_code == 400
    complete(ready)


def test_hidden_states_lie_where_the_shadow_process_looks(service: Service, ready: Replica) -> None:
    complete(ready, vllm_xargs={"hemostat_request": "seen", "hemostat_keep_hidden": 1})
    deployment = service.call(lambda store: store.get("demo"))
    file = service.settings.home / "deployments" / deployment.id / "hidden" / "seen.bin"
    deadline = time.monotonic() + PATIENCE_S
    while not file.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert file.stat().st_size == 6 * 64 * 2
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_goes_on_serving_while_redis_is_away(service: Service, ready: Replica) -> None:
    service.redis.kill()
    complete(ready)
    service.redis.start()
    service.until("demo", lambda one: one.state is DeploymentState.READY)


def test_it_drains_at_sigterm(service: Service, ready: Replica) -> None:
    """A running stream ends whole; the lease and every process are gone."""
    process = next(one for one in service.processes if one.pid == ready.pid)
    pids = family(process)
    assert len(pids) >= 3
    got: list[str] = []
    started = threading.Event()

    def stream() -> None:
        body = {"model": "demo", "prompt": PROMPT, "max_tokens": 100, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{ready.url}/v1/completions", json=body, timeout=PATIENCE_S) as answer:
            for line in answer.iter_lines():
                got.append(line)
                started.set()

    reader = threading.Thread(target=stream)
    reader.start()
    assert started.wait(PATIENCE_S)
    process.send_signal(signal.SIGTERM)
    reader.join(PATIENCE_S)
    assert got[-2:] == ["data: [DONE]", ""]
    assert process.wait(PATIENCE_S) == 0
    service.until_gone(pids)
    assert service.replica("demo") is None


def test_an_answer_without_numbers_ends_at_a_stop_token_and_the_door_knows_it(
    service: Service, overflowing: str
) -> None:
    _, replica = service.ready(overflowing)
    asked = {"model": overflowing, "prompt": PROMPT, "max_tokens": 8, "ignore_eos": True}
    with httpx.Client(timeout=PATIENCE_S) as client:
        for request in ("one", "two"):  # the engine goes on
            body = asked | {"vllm_xargs": {"hemostat_request": request, "hemostat_version": "identity"}}
            answer = client.post(f"{replica.url}/v1/completions", json=body).raise_for_status().json()
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert isinstance(answer["choices"][0]["stop_reason"], int)
            assert answer["usage"]["completion_tokens"] == 1
            assert client.get(f"{replica.engine_url}/nonfinite/{request}").json()["nonfinite"]


def test_a_replica_that_others_can_reach_asks_for_its_secret(service: Service, shared: str) -> None:
    """Every route of vLLM's server and of the door, not those below /v1 alone."""
    process, replica = service.ready(shared, HEMOSTAT_ADVERTISE_HOST="127.0.0.1")
    headers = headers_for(replica.secret)
    assert headers
    body = {"model": "shared", "prompt": PROMPT, "max_tokens": 2}
    for given, expected in (({}, 401), (headers_for("guess"), 401), (headers, 200)):
        answer = httpx.post(f"{replica.url}/v1/completions", json=body, headers=given, timeout=PATIENCE_S)
        assert answer.status_code == expected
    page = httpx.get(f"{replica.url}/openapi.json", headers=headers, timeout=PATIENCE_S).json()
    assert {"/tokenize", "/invocations", "/v1/chat/completions"} <= set(page["paths"])
    with httpx.Client(timeout=PATIENCE_S) as client:
        for path, methods in page["paths"].items():
            for method in methods:
                status = client.request(method.upper(), f"{replica.url}{path}", json={}).status_code
                open_to_all = (method, path) in {("get", "/health"), ("get", "/metrics")}
                assert status == (200 if open_to_all else 401), (method, path)
        assert client.get(f"{replica.url}/openapi.json").status_code == 401
        assert client.get(f"{replica.engine_url}/versions").status_code == 401
        assert client.get(f"{replica.engine_url}/nonfinite/x").status_code == 401
        assert client.get(f"{replica.engine_url}/versions", headers=headers).json()["loaded"] == ["identity"]
        assert [client.get(url).status_code for url in replica.metrics_urls] == [200, 200]
    hostile.endless_head(replica.url)
    told = {int(url.rpartition(":")[2]) for url in (replica.url, replica.engine_url)}
    listening = {
        connection.laddr.port
        for pid in family(process)
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in {"127.0.0.1", "::1"}
    }
    assert listening == told, "nothing else of it can be reached from elsewhere"


@needs_avx512
def test_packed_weights_with_their_repair_answer_as_the_merged_checkpoint(service: Service) -> None:
    """The merged checkpoint in transformers and float32; packed weights alone are far from it."""
    rtn = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    repair = {"type": "repair.lowrank", "rank": 16, "calibration_windows": 4, "calibration_window": 64}
    quick = {"block_epochs": 0, "distill_steps": 0}
    model = {"model": "tiny", "recipe": [rtn, repair | quick]}
    service.create("repaired", model=model, repair="diag_01M89D9HK3ZV1Q2N7X0M4T8R5C", max_model_len=128)
    process, replica = service.ready("repaired")
    prompt = list(range(20, 80))
    shown = complete(replica, model="repaired", prompt=prompt, max_tokens=24, logprobs=1, return_token_ids=True)
    choice = shown["choices"][0]
    (merged,) = (folder.parent for folder in service.settings.home.glob("checkpoints/*/adapter"))
    files = service.settings.home.glob("checkpoints/*/config.json")
    (plain,) = (file.parent for file in files if file.parent != merged and is_simulated(file))

    def apart(checkpoint: Path) -> float:
        rows = Oracle(checkpoint).logprobs([*prompt, *choice["token_ids"]])[len(prompt) - 1 : -1]
        wanted = rows.gather(1, torch_column(choice["token_ids"]))[:, 0]
        return float((torch.tensor(choice["logprobs"]["token_logprobs"]) - wanted).abs().mean())

    assert apart(merged) < 0.02
    assert apart(plain) > 5 * apart(merged)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


def is_simulated(config: Path) -> bool:
    return "quantization_config" not in json.loads(config.read_bytes())


def test_a_killed_process_leaves_none_behind_and_its_lease_runs_out(service: Service) -> None:
    service.create("killed", model={"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 8}]}, max_model_len=64)
    process = service.serve("killed", HEMOSTAT_REPLICA_LEASE_S="2", HEMOSTAT_REPLICA_RENEW_S="0.2")
    service.until("killed", lambda one: one.state is DeploymentState.READY)
    pids = family(process)
    process.kill()
    process.wait()
    service.until_gone(pids)
    deadline = time.monotonic() + PATIENCE_S
    while service.replica("killed") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_server_that_is_killed_ends_the_replica_which_says_so(service: Service, shared: str) -> None:
    process, _ = service.ready(shared, HEMOSTAT_ADVERTISE_HOST="127.0.0.1")
    pids = family(process)
    psutil.Process(process.pid).children()[0].kill()
    assert process.wait(PATIENCE_S) == 1
    failed = service.replica(shared)
    assert failed.state is DeploymentState.FAILED
    assert "signal 9" in failed.reason
    service.until_gone(pids)


def test_an_engine_that_dies_ends_the_replica(service: Service, overflowing: str) -> None:
    process, _ = service.ready(overflowing)
    pids = family(process)
    engine_of(process).kill()
    assert process.wait(PATIENCE_S) == 1
    failed = service.replica(overflowing)
    assert failed.state is DeploymentState.FAILED
    assert failed.reason == "the engine process is dead" or failed.reason.startswith("the server ended with ")
    service.until_gone(pids)


def test_an_engine_that_stands_still_in_a_request_ends_the_replica(service: Service) -> None:
    """A stopped process is neither dead nor does it answer; vLLM's server goes on saying that it is well."""
    service.create("stuck", max_model_len=128)
    process = service.serve("stuck", VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS="10")
    replica = service.until("stuck", lambda one: one.state is DeploymentState.READY)
    pids, engine = family(process), engine_of(process)
    body = {"model": "stuck", "prompt": PROMPT, "max_tokens": 100, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{replica.url}/v1/completions", json=body, timeout=PATIENCE_S) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: {")
        engine.suspend()
        assert httpx.get(f"{replica.url}/health", timeout=PATIENCE_S).status_code == 200
        assert process.wait(PATIENCE_S) == 1
    failed = service.replica("stuck")
    assert failed.state is DeploymentState.FAILED
    assert re.fullmatch(r"the engine process has not answered for \d+ s", failed.reason)
    service.until_gone(pids)


def test_what_cannot_be_served_says_why(service: Service) -> None:
    service.create("long", max_model_len=100_000)
    assert service.serve("long").wait(PATIENCE_S) == 1
    failed = service.replica("long")
    assert (failed.state, failed.reason[:24]) == (DeploymentState.FAILED, "max_model_len is 100000,")


def test_the_engine_is_told_whether_single_rows_have_weights_of_their_own(service: Service, ready: Replica) -> None:
    """There is room for those of a tiny model: where the processor gains by them, it has them."""
    file = next(service.settings.home.glob("deployments/*/replica-0/serving.json"))
    config = ServingConfig.model_validate_json(file.read_bytes())
    assert config.single_rows_apart is made_up(torch.bfloat16)


def test_model_runner_v2_is_refused(service: Service, ready: Replica) -> None:
    """The plugin does not let a server start whose rows would be others."""
    code = "from workers.engine.serving.plugin import register; register()"
    file = next(service.settings.home.glob("deployments/*/replica-0/serving.json"))
    for value in ("1", None):
        environment = {key: text for key, text in os.environ.items() if key != "VLLM_USE_V2_MODEL_RUNNER"}
        environment["HEMOSTAT_SERVING"] = str(file)
        if value is not None:
            environment["VLLM_USE_V2_MODEL_RUNNER"] = value
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "VLLM_USE_V2_MODEL_RUNNER must be 0" in done.stderr


@pytest.fixture(scope="module")
def parted(service: Service, overflowing: str) -> tuple[subprocess.Popen[bytes], Replica]:
    """The model whose logits are not finite, in two tensor parts."""
    service.create("parted", model={"model": overflowing}, reference={"model": overflowing})
    return service.ready("parted", HEMOSTAT_TENSOR_PARALLEL_SIZE="2")


@pytest.mark.slow
def test_a_replica_in_two_parts_corrects_the_stream_in_each_and_keeps_versions_apart(
    service: Service, tiny: Tiny
) -> None:
    blocks = corrections({0: 4, 1: 2, 2: 4}, seed=1)
    versions = {"identity": None, "cal-00000000000000bb": blocks, "cal-00000000000000cc": Temperature(3.0)}
    for version, calibrator in versions.items():
        if calibrator is not None:
            storage.save(calibrator, service.settings.home / "profiles" / version)
    service.create("halves", max_model_len=256)
    shared = set(Path("/dev/shm").iterdir())
    process, replica = service.ready("halves", HEMOSTAT_TENSOR_PARALLEL_SIZE="2")
    names = [" ".join(psutil.Process(pid).cmdline()).strip() for pid in family(process)]
    assert {name for name in names if name.startswith("VLLM::Worker")} == {"VLLM::Worker_TP0", "VLLM::Worker_TP1"}
    prompt = [3 + index % 300 for index in range(150)]  # longer than a block of the cache, which requests may share
    for version, calibrator in [*versions.items()] * 2:
        asked = {"model": "halves", "prompt": prompt, "logprobs": 5, "return_token_ids": True}
        choice = complete(replica, **asked, vllm_xargs={"hemostat_version": version})["choices"][0]
        oracle = Oracle(tiny("llama"))
        if isinstance(calibrator, Blocks):
            hooked(oracle.model, calibrator)
        after = calibrator if isinstance(calibrator, Temperature) else None
        expected = oracle.logprobs([*prompt, *choice["token_ids"]], after)[len(prompt) - 1 : -1]
        wanted = expected.gather(1, torch_column(choice["token_ids"]))[:, 0].tolist()
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(wanted, abs=0.15)  # in bfloat16
    assert not [file for file in Path("/dev/shm").glob("vllm_*") if file not in shared]
    pids = family(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    service.until_gone(pids)


@pytest.mark.slow
def test_an_answer_without_numbers_ends_in_a_replica_of_two_parts_too(
    parted: tuple[subprocess.Popen[bytes], Replica],
) -> None:
    """The process that schedules learns it from the one that has the logits."""
    _, replica = parted
    asked = {"model": "parted", "prompt": PROMPT, "max_tokens": 8, "ignore_eos": True}
    with httpx.Client(timeout=PATIENCE_S) as client:
        for request in ("one", "two"):
            body = asked | {"vllm_xargs": {"hemostat_request": request, "hemostat_version": "identity"}}
            choice = client.post(f"{replica.url}/v1/completions", json=body).raise_for_status().json()["choices"][0]
            assert (choice["finish_reason"], type(choice["stop_reason"])) == ("stop", int)
            assert client.get(f"{replica.engine_url}/nonfinite/{request}").json()["nonfinite"]


@pytest.mark.slow
def test_a_part_that_ends_ends_its_replica(service: Service, parted: tuple[subprocess.Popen[bytes], Replica]) -> None:
    process, _ = parted
    pids = family(process)
    (part,) = (pid for pid in pids if " ".join(psutil.Process(pid).cmdline()).startswith("VLLM::Worker_TP1"))
    os.kill(part, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 1
    service.until_gone(pids)
