"""The divergence on the device against float64, with the graphs compiled as jobs run them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.distributions import Case, case, logits64, make_head, oracle
from tests.support.divergences import ALLOWED, DIVERGENCES, FLOATS, HEADS, PRECISIONS, moved
from workers.distributions.divergence import Divergence, Precision
from workers.distributions.token_values import TokenValues

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of the compiler's imports

WIDE = make_head(49_152, 576, spread=3.0)
WIDEST = make_head(128_256, 1024, spread=3.0)


def on(device: str, given: Case, precision: Precision) -> TokenValues:
    divergence = Divergence(given.reference, given.candidate, precision=precision, device=device)
    return divergence(given.reference_TD.to(device), given.candidate_TD.to(device), given.next_T)


def means(values: TokenValues) -> dict[str, float]:
    return {name: float(getattr(values, name).astype(np.float64).mean()) for name in FLOATS}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("heads", ["plain", "bias, soft cap and scale", "weights differ"])
def test_means_agree_with_float64(device: str, heads: str, precision: Precision) -> None:
    given = case(*HEADS[heads], 200, by=0.05)
    found, right = on(device, given, precision), given.oracle()
    assert found.finite.all()
    for name, mean in means(found).items():
        assert mean == pytest.approx(float(right[name].mean()), rel=ALLOWED[precision]), name


@pytest.mark.parametrize("head", [WIDE, WIDEST], ids=["49k", "128k"])
def test_no_mean_is_further_off_than_that_of_logits_rounded_to_bf16(device: str, head: object) -> None:
    given = case(head, moved(head, 0.05), 64, by=0.01)  # type: ignore[arg-type]
    right, found = given.oracle(), means(on(device, given, "fast"))
    naive = oracle(
        logits64(given.reference, given.reference_TD).bfloat16().double(),
        logits64(given.candidate, given.candidate_TD).bfloat16().double(),
        given.next_T,
    )
    for name in DIVERGENCES:
        off = abs(found[name] - right[name].mean())
        assert off <= abs(naive[name].mean() - right[name].mean()) + 5e-4 * right[name].mean(), name


def test_the_host_waits_for_the_device_when_values_are_read_and_not_before(device: str) -> None:
    given = case(WIDE, moved(WIDE, 0.05), 700, by=0.05)
    states = given.reference_TD, given.candidate_TD, given.next_T
    divergence = Divergence(given.reference, given.candidate, device=device)
    right = divergence(*states)
    forbid = torch.cuda.set_sync_debug_mode if device == "cuda" else lambda _: None
    forbid("error")
    try:
        first, second = divergence.start(*states), divergence.start(*states)
    finally:
        forbid("default")
    assert np.array_equal(first.values().kl, right.kl)
    assert np.array_equal(second.values().kl, right.kl)


def test_a_model_is_no_nat_away_from_itself(device: str) -> None:
    given = case(WIDE, WIDE, 700, by=0.0)
    found = on(device, replace(given, candidate_TD=given.reference_TD), "fast")
    assert not found.kl.any()
    assert found.top1_agree.all()
