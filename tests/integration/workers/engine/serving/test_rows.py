"""Every row gets its own request's version, however vLLM cuts, mixes and moves the batch: against transformers."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.integration.workers.engine.serving.calibrators import ByContext
from tests.integration.workers.engine.serving.conftest import Oracle, Served, Start, Wanted, rows_of
from workers.calibrators.protocol import Calibrator

Tiny = Callable[..., Path]

ONE, TWO, FLAT = "cal-0000000000000001", "cal-0000000000000002", "cal-0000000000000003"
TABLE: dict[str, Calibrator] = {ONE: ByContext(1), TWO: ByContext(2)}


def prompt(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(2, 320), k=length)


def equip(served: Served) -> Served:
    """Loads the two versions of `TABLE`."""
    served.hooked.versions.load = TABLE.__getitem__
    served.want(ONE, TWO)
    return served


def mixed(lengths: list[int], tokens: int = 8) -> list[Wanted]:
    """Requests that differ in version and length; each version has two of one prompt."""
    versions = ["identity", ONE, TWO]
    return [
        Wanted(prompt(length, length), versions[index % 3], tokens + index % 4) for index, length in enumerate(lengths)
    ]


def agree(oracle: Oracle, wanted: list[Wanted]) -> None:
    for one in wanted:
        oracle.agrees(one, TABLE.get(one.version))


@pytest.fixture(scope="module")
def oracle(tiny: Tiny) -> Oracle:
    return Oracle(tiny("llama"))


@pytest.fixture(scope="module")
def served(start: Start) -> Served:
    return equip(start())


def test_requests_of_three_versions_in_one_batch(served: Served, oracle: Oracle) -> None:
    agree(oracle, served.run(*mixed([5, 5, 5, 17, 17, 17, 40, 90, 1])))


def test_requests_that_join_and_leave_a_running_batch(served: Served, oracle: Oracle) -> None:
    waiting = dict(enumerate(mixed([7, 3, 21, 7, 50, 4, 9, 9, 30, 2, 11, 64], tokens=3)))
    names = {f"late-{index}": one for index, one in waiting.items()}
    queue = list(names)
    while queue or served.engine.has_unfinished_requests():
        for name in queue[:2]:
            served.add(names[name], name)
        queue = queue[2:]
        served.step(names)
    agree(oracle, list(names.values()))


def test_the_two_versions_differ_from_each_other_and_from_none(oracle: Oracle) -> None:
    """Else the tests above would prove nothing."""
    shown = [oracle.logprobs(prompt(1, 9), one)[-1] for one in (None, *TABLE.values())]
    for first in range(3):
        for second in range(first):
            assert float((shown[first] - shown[second]).abs().amax()) > 0.5


def test_prompt_log_probabilities_show_their_own_requests_version(served: Served, oracle: Oracle) -> None:
    wanted = mixed([12, 12, 12, 30, 30, 30])
    for one in wanted[:5]:
        one.options["prompt_logprobs"] = -1
    agree(oracle, served.run(*wanted))
    for one in wanted[:5]:
        expected = oracle.logprobs(one.prompt, TABLE.get(one.version))[:-1]
        torch.testing.assert_close(rows_of(one.output.prompt_logprobs[1:]), expected, atol=2e-3, rtol=1e-3)
    assert not wanted[5].output.prompt_logprobs


def test_several_choices_of_one_request_have_its_version(served: Served, oracle: Oracle) -> None:
    flat = ByContext(4, sharpness=0.02)
    served.hooked.versions.load = {**TABLE, FLAT: flat}.__getitem__
    one = Wanted(prompt(3, 14), FLAT, 6, options={"n": 4, "temperature": 2.0, "seed": 5})
    served.run(one, *mixed([14, 8]))
    assert len({tuple(choice.token_ids) for choice in one.output.outputs}) > 1
    for choice in one.output.outputs:
        drawn = list(choice.token_ids)
        expected = oracle.logprobs([*one.prompt, *drawn], flat)[len(one.prompt) - 1 : -1]
        torch.testing.assert_close(rows_of(choice.logprobs), expected, atol=2e-3, rtol=1e-3)


def test_a_shared_prefix_is_read_from_the_cache_by_every_version(served: Served, oracle: Oracle) -> None:
    """Blocks hold what comes before the last hidden state, so they are shared between versions."""
    shared = prompt(8, 200)
    served.run(Wanted(shared, ONE, 2))
    wanted = [Wanted([*shared, 9, 5 + index], version) for index, version in enumerate(["identity", ONE, TWO, TWO])]
    served.run(*wanted)
    assert all(one.output.num_cached_tokens >= 128 for one in wanted)
    agree(oracle, wanted)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "granite", "mixtral"])
def test_other_architectures(start: Start, tiny: Tiny, kind: str) -> None:
    """A soft cap, a logit scale, experts."""
    agree(Oracle(tiny(kind)), equip(start(kind)).run(*mixed([5, 5, 20, 33, 2, 2])))


def test_prompts_that_are_computed_in_pieces(start: Start, oracle: Oracle) -> None:
    """16 tokens a step: rows of unfinished prompts stand between those that draw."""
    served = equip(start(max_num_batched_tokens=16, max_num_seqs=8, enable_prefix_caching=False))
    wanted = mixed([90, 3, 41, 60, 5, 33, 100, 2])
    for one in wanted[:4]:
        one.options["prompt_logprobs"] = -1
    agree(oracle, served.run(*wanted))
    for one in wanted[:4]:
        expected = oracle.logprobs(one.prompt, TABLE.get(one.version))[:-1]
        torch.testing.assert_close(rows_of(one.output.prompt_logprobs[1:]), expected, atol=2e-3, rtol=1e-3)


def test_requests_that_are_preempted_and_come_back(start: Start, oracle: Oracle) -> None:
    """Eight requests need three blocks of 32 tokens each; there are ten blocks."""
    block = 2 * 3 * 32 * 32 * 4  # keys and values, layers, head size, tokens, bytes
    served = equip(start(block_size=32, kv_cache_memory_bytes=10 * block, max_num_seqs=8, max_model_len=160))
    scheduler = served.engine.engine_core.engine_core.scheduler
    preempted: list[str] = []
    plain = scheduler._preempt_request
    scheduler._preempt_request = lambda request, *rest, **named: (
        preempted.append(request.request_id),
        plain(request, *rest, **named),
    )[1]
    wanted = mixed([30, 30, 30, 30, 30, 30, 30, 30], tokens=50)
    for index, one in enumerate(wanted):
        one.prompt = prompt(100 + index, 30)
        one.options["logprobs"] = -1
    agree(oracle, served.run(*wanted))
    assert preempted
