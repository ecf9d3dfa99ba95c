"""A checkpoint with block corrections is what transformers computes in float32 with the same corrections by hooks."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.blocks import FILE, SECTION
from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import fingerprint, inspect
from tests.integration.workers.engine.conftest import same
from tests.support.blocks import corrections, hooked
from tests.support.copies import copier, edit_json
from workers.engine.blocks import write
from workers.engine.generation import GenerationEngine
from workers.engine.pool import EnginePool
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust

Tiny = Callable[..., Path]
Exact = Callable[[Path], ResidentEngine]
Corrected = Callable[..., Path]


@pytest.fixture
def exact(pool: EnginePool) -> Iterator[Exact]:
    """`exact(checkpoint)`: an engine in float32."""
    made: list[ResidentEngine] = []

    def start(checkpoint: Path) -> ResidentEngine:
        info = inspect(checkpoint)
        made.append(ResidentEngine(pool._options(info, 128, "float32"), Trust("cpu")))
        made[-1].load(info)
        return made[-1]

    yield start
    for engine in made:
        engine.close()


@pytest.fixture
def corrected(tiny: Tiny, tmp_path: Path) -> Corrected:
    """`corrected(kind, ranks, seed, weights)`: a tiny checkpoint of random corrections; `ranks` by block, of three."""

    def make(kind: str, ranks: dict[int, int], *, seed: int = 0, weights: int = 0) -> Path:
        name = f"{kind}-{len(list(tmp_path.iterdir()))}"
        folder = copier(tiny, tmp_path)(kind, name=name, seed=weights)
        write(folder, corrections(ranks, seed=seed))
        return folder

    return make


def oracle(checkpoint: Path, windows: list[list[int]], ranks: dict[int, int], seed: int = 0) -> list[torch.Tensor]:
    """Final hidden states in float32, each block's output corrected by the formula."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    hooked(model, corrections(ranks, seed=seed))
    with torch.no_grad():
        return [model.model(input_ids=torch.tensor([window])).last_hidden_state[0] for window in windows]


def close(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(float((a - b).norm() / b.norm()) < 1e-4 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "granite", "mixtral"])
@pytest.mark.parametrize("ranks", [{0: 4, 1: 0, 2: 2}, {1: 3}])
def test_states_are_those_of_transformers(
    corrected: Corrected, tiny: Tiny, exact: Exact, windows: list[list[int]], kind: str, ranks: dict[int, int]
) -> None:
    made = corrected(kind, ranks)
    expected = oracle(tiny(kind), windows, ranks)
    assert not close(oracle(tiny(kind), windows, {}), expected)
    assert close(exact(made).hidden_states(windows), expected)


def test_corrections_of_no_block_change_no_bit(
    corrected: Corrected, tiny: Tiny, pool: EnginePool, windows: list[list[int]]
) -> None:
    plain = pool.loaded(inspect(tiny("llama")), 128, "bfloat16").hidden_states(windows)
    assert same(pool.loaded(inspect(corrected("llama", {})), 128, "bfloat16").hidden_states(windows), plain)


def test_other_corrections_are_another_engine_and_another_fingerprint(
    corrected: Corrected, tiny: Tiny, pool: EnginePool, windows: list[list[int]]
) -> None:
    folders = [tiny("llama"), corrected("llama", {1: 2}), corrected("llama", {1: 2}, seed=1)]
    assert len({fingerprint(folder) for folder in folders}) == 3
    states = [pool.loaded(inspect(folder), 128, "bfloat16").hidden_states(windows) for folder in folders]
    assert not any(same(one, other) for one, other in zip(states, states[1:] + states[:1], strict=True))
    again = pool.loaded(inspect(folders[0]), 128, "bfloat16").hidden_states(windows)
    assert same(again, states[0])


def test_corrections_for_one_batch_are_those_of_a_checkpoint_and_leave_no_trace(
    corrected: Corrected, tiny: Tiny, pool: EnginePool, windows: list[list[int]]
) -> None:
    ranks = {0: 4, 2: 0}
    expected = pool.loaded(inspect(corrected("llama", ranks)), 128, "bfloat16").hidden_states(windows)
    engine = pool.loaded(inspect(tiny("llama")), 128, "bfloat16")
    plain = engine.hidden_states(windows)
    assert same(engine.hidden_states(windows, blocks=[corrections(ranks)]), expected)
    assert same(engine.hidden_states(windows), plain)
    assert not same(plain, expected)


def test_weights_swap_below_the_same_corrections(
    corrected: Corrected, pool: EnginePool, windows: list[list[int]]
) -> None:
    first, second = corrected("llama", {0: 2, 2: 2}), corrected("llama", {0: 2, 2: 2}, weights=1)
    engine = ResidentEngine(pool._options(inspect(first), 128, "bfloat16"), Trust("cpu"))
    engine.load(inspect(first))
    engine.load(inspect(second))
    swapped = engine.hidden_states(windows)
    assert (engine.starts, engine.swaps) == (1, 1)
    engine.close()
    assert same(swapped, pool.loaded(inspect(second), 128, "bfloat16").hidden_states(windows))


def test_what_is_generated_is_corrected_too(corrected: Corrected, tiny: Tiny, pool: EnginePool) -> None:
    """Log-probabilities of drawn tokens against transformers' of the whole text."""
    from vllm import SamplingParams

    ranks, prompt = {0: 4, 2: 4}, list(range(20, 60))
    params = SamplingParams(temperature=0, max_tokens=24, logprobs=1, detokenize=False)
    with GenerationEngine(
        corrected("llama-untied", ranks), pool=pool, length=128, streams=4, dtype="float32"
    ) as engine:
        drawn = engine.run([prompt], [params])[0].outputs[0]
    tokens = list(drawn.token_ids)
    found = torch.tensor([drawn.logprobs[index][token].logprob for index, token in enumerate(tokens)])

    def expected(ranks: dict[int, int]) -> torch.Tensor:
        model: Any = AutoModelForCausalLM.from_pretrained(tiny("llama-untied"), dtype=torch.float32)
        hooked(model, corrections(ranks))
        with torch.no_grad():
            logits_TV = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        return logits_TV.log_softmax(-1)[range(len(tokens)), tokens]

    assert torch.allclose(found, expected(ranks), atol=1e-3)
    assert not torch.allclose(found, expected({}), atol=0.1)


def test_what_does_not_belong_together_is_refused(corrected: Corrected, pool: EnginePool) -> None:
    def code(folder: Path, **options: Any) -> ErrorCode:
        info = inspect(folder)
        with pytest.raises(HemostatError) as caught:
            ResidentEngine(replace(pool._options(info, 128, "bfloat16"), **options), Trust("cpu")).load(info)
        return caught.value.code

    folder = corrected("llama", {1: 2})
    assert code(folder, compiled=True) is ErrorCode.ENGINE_FAILED
    write(folder, corrections({1: 2}, layers=4))
    assert code(folder) is ErrorCode.CHECKPOINT_SHAPE_MISMATCH
    corrections({1: 2}).save(folder / FILE)
    assert code(folder) is ErrorCode.CHECKPOINT_CORRUPT
    (folder / FILE).unlink()
    assert code(folder) is ErrorCode.CHECKPOINT_INCOMPLETE
    edit_json(folder / "config.json", **{SECTION: "blocks"})
    assert code(folder) is ErrorCode.CHECKPOINT_CORRUPT
