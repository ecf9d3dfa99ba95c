"""What the hooks must not change, what they end, what they keep, and versions that come and go while requests run."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.deployment import NOT_FINITE
from tests.integration.workers.engine.serving.calibrators import ByContext
from tests.integration.workers.engine.serving.conftest import Oracle, Served, Start, Wanted, rows_of
from tests.integration.workers.engine.serving.test_rows import ONE, TABLE, TWO, equip, mixed, prompt
from workers.calibrators.lowrank import LowRank
from workers.calibrators.temperature import Temperature
from workers.engine.serving import engines
from workers.engine.serving.batch import NOT_LOADED

Tiny = Callable[..., Path]
POISON = 250
POISONED = "cal-00000000000000ff"


def ask(served: Served, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.hooked.door.port}{path}", timeout=30) as answer:
        body = answer.read().decode()
    return json.loads(body) if answer.headers["Content-Type"].startswith("application/json") else body


@pytest.fixture(scope="module")
def oracle(tiny: Tiny) -> Oracle:
    return Oracle(tiny("llama"))


@pytest.fixture(scope="module")
def served(start: Start) -> Served:
    return equip(start())


def shown(wanted: Wanted) -> list[tuple[list[int], torch.Tensor]]:
    return [(list(one.token_ids), rows_of(one.logprobs)) for one in wanted.output.outputs]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_rows_without_a_version_are_bit_for_bit_those_of_plain_vllm(start: Start, dtype: str) -> None:
    """The same requests, greedy and drawn; then the same again with calibrated requests in the other rows."""
    plain, hooked = start(hooked=False, dtype=dtype), equip(start(dtype=dtype))

    def requests(*versions: str) -> list[Wanted]:
        options: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 3}, {"prompt_logprobs": -1}]
        return [
            Wanted(prompt(index, 6 + 9 * index), version, 10, options=dict(options[index % 3]))
            for index, version in enumerate(versions)
        ]

    expected = plain.run(*requests(*["identity"] * 6))
    for versions in (["identity"] * 6, ["identity", ONE, "identity", TWO, "identity", "identity"]):
        found = hooked.run(*requests(*versions))
        for version, one, other in zip(versions, found, expected, strict=True):
            if version != "identity":
                continue
            for (tokens, logprobs), (same_tokens, same_logprobs) in zip(shown(one), shown(other), strict=True):
                assert tokens == same_tokens
                assert torch.equal(logprobs, same_logprobs)
            if other.output.prompt_logprobs:
                assert torch.equal(rows_of(one.output.prompt_logprobs[1:]), rows_of(other.output.prompt_logprobs[1:]))


def test_a_seed_draws_the_same_however_its_prompt_is_cut(start: Start) -> None:
    """Plain vLLM ends on a CPU when a prompt with a seed is longer than a step."""

    def drawn(step_tokens: int) -> list[list[int]]:
        served = start(max_num_batched_tokens=step_tokens)
        options = {"temperature": 1.0, "seed": 3}
        found = served.run(Wanted(prompt(1, 100), options=options), Wanted(prompt(2, 70), options=dict(options)))
        return [one.drawn for one in found]

    assert drawn(32) == drawn(512)


def test_a_request_keeps_its_version_while_others_are_loaded_and_dropped(start: Start, oracle: Oracle) -> None:
    """From files, as the service does it."""
    served = start()
    first, second = LowRank(*low_rank(1)), Temperature(2.5)
    one, two = served.save(first, 1), served.save(second, 2)
    served.want(one)
    running = {"old": Wanted(prompt(1, 12), one, 30)}
    served.add(running["old"], "old")
    for _ in range(6):
        served.step(running)
    served.want(two)
    assert ask(served, "/versions") == {"loaded": ["identity", two], "refused": {}}
    running["new"] = Wanted(prompt(2, 20), two, 10)
    served.add(running["new"], "new")
    while served.engine.has_unfinished_requests():
        served.step(running)
    oracle.agrees(running["old"], first)
    oracle.agrees(running["new"], second)
    assert "hemostat_serving_profile_load_seconds_count 2.0" in ask(served, "/metrics")
    again = Wanted(prompt(1, 12), one, 4)  # no longer wanted, but the gateway may not know that yet
    served.run(again)
    oracle.agrees(again, first)


def low_rank(seed: int, width: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(width, 4, generator=generator),
        0.2 * torch.randn(4, width, generator=generator),
        torch.randn(width, generator=generator),
    )


def test_profiles_that_do_not_fit_are_refused_and_serving_goes_on(start: Start, oracle: Oracle) -> None:
    served = start()
    good = served.save(Temperature(1.5), 1)
    narrow = served.save(LowRank(*low_rank(1, width=32)), 2)
    damaged = served.save(LowRank(*low_rank(2)), 3)
    file = served.profiles / damaged / "tensors.safetensors"
    tensors = load_file(file)
    tensors["shift_D"][5] = float("nan")
    save_file(tensors, file)
    foreign = served.save(Temperature(3.0), 4)
    (served.profiles / foreign / "profile.json").write_text(
        json.dumps({"fit": {"candidate": {"weights_fingerprint": "0" * 16}}})
    )
    missing = "cal-0000000000000005"
    served.want(good, narrow, damaged, foreign, missing)
    told = ask(served, "/versions")
    assert told["loaded"] == ["identity", good]
    assert {version: why["code"] for version, why in told["refused"].items()} == {
        narrow: "profile_mismatch",
        damaged: "profile_corrupt",
        foreign: "profile_mismatch",
        missing: "profile_not_found",
    }
    refused = Wanted(prompt(3, 5), narrow, 9, request="refused")
    fine = Wanted(prompt(3, 5), good, 9)
    served.run(refused, fine)
    oracle.agrees(fine, Temperature(1.5))
    assert len(refused.drawn) == 1  # never served as something else than was asked for
    assert refused.output.outputs[0].stop_reason == refused.drawn[0]
    assert fine.output.outputs[0].stop_reason is None
    assert ask(served, "/nonfinite/refused") == {"nonfinite": True, "reason": NOT_LOADED}


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_eos": False},
        {"ignore_eos": True},
        {"min_tokens": 20, "ignore_eos": False},
        {"temperature": 1.0, "top_p": 0.9, "top_k": 5, "presence_penalty": 1.0, "repetition_penalty": 1.2},
        {"allowed_token_ids": [3, 4, 5]},
        {"logit_bias": {1: -100.0}},
        {"bad_words": []},
        {"max_tokens": 1},
    ],
    ids="+".join,
)
def test_a_request_with_nan_logits_is_ended_alone(
    start: Start, tiny: Tiny, tmp_path: Path, oracle: Oracle, options: dict[str, Any]
) -> None:
    """Whatever else the request demands; its neighbours are as ever, and so is who gets its blocks of the cache."""
    served = equip(start())
    served.hooked.versions.load = {POISONED: ByContext(3, poison=POISON)}.__getitem__
    served.want(POISONED)
    sick = Wanted([5, 6, POISON], POISONED, 30, request="sick", options=options)
    other = Wanted([5, 6, 7], POISONED, 12, request="well")
    plain = Wanted([5, 6, POISON], "identity", 12)
    served.run(sick, other, plain)
    assert sick.output.outputs[0].finish_reason == "stop"
    assert [sick.output.outputs[0].stop_reason] == sick.drawn  # of one token
    assert bool(rows_of(sick.output.outputs[0].logprobs).isfinite().all())
    oracle.agrees(other, ByContext(3))
    oracle.agrees(plain)
    assert ask(served, "/nonfinite/sick") == {"nonfinite": True, "reason": NOT_FINITE}
    assert ask(served, "/nonfinite/well") == {"nonfinite": False, "reason": ""}
    assert 'hemostat_serving_nonfinite_requests_total{deployment="tiny"} 1.0' in ask(served, "/metrics")


def test_a_checkpoint_that_is_broken_for_one_token(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    """NaN in its hidden states and cache; the request's prompt log-probabilities are numbers all the same."""
    whole, folder = tiny("llama-untied"), tmp_path / "broken"
    folder.mkdir()
    for file in whole.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][POISON] = 0  # nobody draws it
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    oracle = Oracle(folder)
    tensors["model.embed_tokens.weight"][POISON] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    served = start(checkpoint=folder, block_size=32, kv_cache_memory_bytes=12 * 2 * 3 * 32 * 32 * 4, max_model_len=160)
    for turn in range(3):
        sick = Wanted([*prompt(turn, 20), POISON], tokens=30, request=f"sick-{turn}")
        sick.options["prompt_logprobs"] = 3
        late = Wanted(prompt(turn, 4), tokens=40)
        served.run(sick, late)
        oracle.agrees(late)
        assert len(sick.drawn) <= 2
        assert ask(served, f"/nonfinite/sick-{turn}")["nonfinite"]
        for position in sick.output.prompt_logprobs[1:]:
            assert all(abs(one.logprob) <= 1e5 for one in position.values())
    after = [Wanted(prompt(50 + index, 40), tokens=20) for index in range(4)]  # in the blocks that held NaN
    for one in served.run(*after):
        oracle.agrees(one)


def test_hidden_states_of_asked_requests_are_kept(served: Served, oracle: Oracle) -> None:
    """Raw, before the correction, one row a drawn token; private; a request that is cut short leaves what it drew."""
    kept = Wanted(prompt(4, 100), ONE, 9, request="kept", keep_hidden=True)
    other = Wanted(prompt(5, 10), TWO, 9, request="other")
    served.run(kept, other)
    file = served.config.hidden / "kept.bin"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in served.config.hidden.iterdir()] == ["kept.bin"]
    found = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.bfloat16).view(-1, 64)
    oracle.logprobs([*kept.prompt, *kept.drawn])
    expected = oracle.hidden[len(kept.prompt) - 1 : -1]
    assert found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=1e-2)
    oracle.agrees(kept, TABLE[ONE])


def test_hidden_states_of_a_request_that_comes_in_pieces_and_is_preempted(start: Start, oracle: Oracle) -> None:
    """Rows of unfinished prompts are drawn from and thrown away; they are not kept."""
    block = 2 * 3 * 32 * 32 * 4
    served = equip(
        start(
            block_size=32,
            kv_cache_memory_bytes=10 * block,
            max_num_seqs=8,
            max_model_len=160,
            max_num_batched_tokens=24,
            enable_prefix_caching=False,
        )
    )
    scheduler = served.engine.engine_core.engine_core.scheduler
    preempted: list[str] = []
    plain = scheduler._preempt_request

    def preempt(request: Any, *rest: Any, **named: Any) -> Any:
        preempted.append(request.request_id)
        return plain(request, *rest, **named)

    scheduler._preempt_request = preempt
    wanted = mixed([40] * 8, tokens=40)
    for index, one in enumerate(wanted):
        one.prompt, one.request, one.keep_hidden = prompt(200 + index, 40), f"kept-{index}", True
    served.run(*wanted)
    assert preempted
    for one in wanted:
        content = bytearray((served.config.hidden / f"{one.request}.bin").read_bytes())
        found = torch.frombuffer(content, dtype=torch.bfloat16).view(-1, 64)
        oracle.logprobs([*one.prompt, *one.drawn])
        expected = oracle.hidden[len(one.prompt) - 1 : -1]
        assert found.shape == expected.shape
        torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=1e-2)


def test_rows_are_counted(start: Start) -> None:
    served = equip(start())
    served.run(Wanted(prompt(1, 5), ONE, 7), Wanted(prompt(2, 5), "identity", 4))
    metrics = ask(served, "/metrics")
    assert 'hemostat_serving_rows_total{calibrated="yes",deployment="tiny"} 7.0' in metrics
    assert 'hemostat_serving_rows_total{calibrated="no",deployment="tiny"} 4.0' in metrics
    assert 'hemostat_serving_profiles_loaded{deployment="tiny"} 2.0' in metrics
    assert ask(served, "/livez") == {"status": "ok", "step_s": None}


def test_an_engine_whose_model_is_not_the_plugins_does_not_serve(served: Served) -> None:
    """Else it would answer uncorrected under a version's name."""
    served.hooked.has_model = False
    tracker = next(
        one
        for one in served.engine.model_executor.driver_worker.worker.model_runner.input_batch.logitsprocs.all
        if type(one).__name__ == "RowTracker"
    )
    try:
        with pytest.raises(engines.UnsupportedEngineError, match="general_plugins"):
            tracker.update_state(None)
    finally:
        served.hooked.has_model = True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_v2_model_runner": True}, "VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"speculative_config": object()}, "speculative"),
        ({"scheduler_config": SimpleNamespace(async_scheduling=True)}, "asynchronous"),
        ({"parallel_config": SimpleNamespace(pipeline_parallel_size=2)}, "pipeline stages"),
    ],
)
def test_configurations_in_which_rows_would_be_others_are_refused(change: dict[str, Any], reason: str) -> None:
    sound = {
        "use_v2_model_runner": False,
        "speculative_config": None,
        "scheduler_config": SimpleNamespace(async_scheduling=False),
        "parallel_config": SimpleNamespace(pipeline_parallel_size=1),
    }
    engines.check(SimpleNamespace(**sound))
    with pytest.raises(engines.UnsupportedEngineError, match=reason):
        engines.check(SimpleNamespace(**(sound | change)))
