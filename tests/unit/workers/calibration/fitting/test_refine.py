"""Refined corrections against KL that transformers computes with hooks on the same layers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.support.attention import attention_of
from tests.support.blocks import corrections, hooked
from tests.support.stopping import Stop, StoppedError
from tests.unit.workers.mitigation.repair.support import RTN, operate, windows
from workers.calibration.fitting import refine
from workers.calibration.fitting.fit_text import FitText
from workers.calibrators.blocks import Blocks
from workers.distributions.head import Head
from workers.mitigation.divergence import Divergence
from workers.mitigation.optimizer import Rate
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.stream import Stream
from workers.surgery.callbacks import CheckCancelled, never_cancelled, no_progress
from workers.surgery.dequantize import open_plain

N, L = 32, 32


def text(counted: int = L) -> FitText:
    """Random tokens, of which the first of each window count; a document per two windows."""
    weight_NL = torch.zeros(N, L)
    weight_NL[:, :counted] = 1.0
    return FitText(windows(N, L), weight_NL, torch.arange(N) // 2)


# Random, so they harm: much of it can be learnt from few tokens.
GIVEN = corrections({0: 4, 2: 4})


@pytest.fixture(params=["llama", "gemma2"])
def models(request: pytest.FixtureRequest, tiny: Callable[..., Path], tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A model, and what rounding to 3 bits makes of it."""
    with operate(tiny(request.param), tmp_path / "store", RTN) as wounded:
        yield tiny(request.param), wounded.path


def refined(
    models: tuple[Path, Path],
    given: FitText,
    scratch: Path,
    steps: int,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Blocks:
    scratch.mkdir()
    with ExitStack() as stack:
        both = (stack.enter_context(open_plain(inspect(path), "cpu")) for path in models)
        theirs, ours = (Skeleton(info, read, device="cpu", dtype=torch.float32) for info, read in both)
        return refine.refined(
            ours,
            GIVEN,
            given,
            Stream(theirs, given.tokens_NL, scratch).normed(),
            Divergence(*(Head.load(path, dtype=torch.float32) for path in models)),
            steps=steps,
            progress=no_progress,
            log=lambda _: None,
            check_cancelled=check_cancelled,
        )


@torch.no_grad()
def kl(models: tuple[Path, Path], blocks: Blocks, given: FitText) -> float:
    """Mean over the counted positions of the documents that decide."""
    made: list[Any] = [
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention_of(path))
        for path in models
    ]
    hooked(made[1], blocks)
    held_N = given.parts()[1]
    log_p, log_q = (model(given.tokens_NL[held_N]).logits.log_softmax(-1) for model in made)
    return float((log_p.exp() * (log_p - log_q)).sum(-1)[given.weight_NL[held_N] > 0].mean())


def test_the_kl_falls_on_documents_that_are_not_trained_on(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "RATE", Rate(3e-3))
    found = refined(models, text(), tmp_path / "scratch", 40)
    assert set(found) == set(GIVEN)
    assert kl(models, found, text()) < 0.9 * kl(models, GIVEN, text())


def test_tokens_that_do_not_count_change_nothing(models: tuple[Path, Path], tmp_path: Path) -> None:
    given = text(20)
    filled_NL = given.tokens_NL.clone()
    filled_NL[:, 20:] = 0
    one, other = (
        refined(models, text, tmp_path / name, 3).tensors()
        for name, text in (("one", given), ("other", replace(given, tokens_NL=filled_NL)))
    )
    assert not torch.equal(one["blocks.0.up"], GIVEN[0].up_DR)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("rate", "steps"), [(1e-3, 0), (3.0, 4), (float("nan"), 1)])
def test_corrections_that_training_does_not_help_stay_as_they_were(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, steps: int
) -> None:
    monkeypatch.setattr(refine, "RATE", Rate(rate))
    assert refined(models, text(), tmp_path / "scratch", steps) is GIVEN


def test_it_stops_when_it_is_cancelled(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        refined(models, text(), tmp_path / "scratch", 10**6, Stop(200))
