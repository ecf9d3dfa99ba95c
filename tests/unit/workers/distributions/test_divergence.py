"""Divergences against float64 for every kind of head, down to differences that rounding would drown."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.distributions import Case, case, disturbed, hidden_states, logits64, make_head, oracle
from tests.support.divergences import (
    BITS,
    COUNTS,
    DIVERGENCES,
    HEADS,
    PLAIN,
    PRECISIONS,
    assert_means,
    values_of,
)
from workers.distributions import divergence as divergence_module
from workers.distributions.divergence import CHUNK, Divergence, Precision, arithmetic
from workers.distributions.head import Head
from workers.distributions.token_values import FIELDS, TokenValues

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("heads", HEADS)
def test_means_agree_with_float64_for_every_kind_of_head(heads: str, precision: Precision) -> None:
    assert_means(case(*HEADS[heads], 200, by=0.05), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("vocabulary", "bits"), [(2, 4), (7, 4), (64, 4), (1003, 6), (1003, 8), (3000, 4)])
def test_means_agree_with_float64_at_every_size_of_vocabulary_and_change(
    vocabulary: int, bits: int, precision: Precision
) -> None:
    head = make_head(vocabulary, 96, spread=4.0)
    assert_means(case(head, head, 200, by=BITS[bits]), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("by", [1e-2, 1e-3, 1e-4])
def test_tiny_divergences_do_not_drown_in_rounding(by: float, precision: Precision) -> None:
    """Down to a mean KL of 1e-8 nats. The states are float32: bf16 ones cannot be so close and differ."""
    head = make_head(2000, 64, spread=3.0)
    h = hidden_states(300, 64, dtype=torch.float32)
    if precision == "fast":
        h = h.bfloat16().float()  # else the product rounds what the oracle is given
    given_case = Case(head, head, h, disturbed(h, by), torch.arange(300))
    assert given_case.oracle()["kl"].mean() < 10 * by**2
    assert_means(given_case, precision)


@pytest.mark.parametrize("heads", ["plain", "soft cap", "weights differ", "all differs"])
def test_no_mean_is_further_off_than_that_of_two_heads_rounded_to_bf16(heads: str) -> None:
    given_case = case(*HEADS[heads], 200, by=0.01)
    naive = oracle(
        logits64(given_case.reference, given_case.reference_TD).bfloat16().double(),
        logits64(given_case.candidate, given_case.candidate_TD).bfloat16().double(),
        given_case.next_T,
    )
    right, found = given_case.oracle(), values_of(given_case, "fast")
    for name in DIVERGENCES:
        off = abs(float(getattr(found, name).astype(np.float64).mean()) - right[name].mean())
        assert off <= abs(naive[name].mean() - right[name].mean()) + 5e-4 * right[name].mean(), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("vocabulary", "form"),
    [
        (7, {}),
        (1003, {}),
        (1003, {"bias": True}),
        (1003, {"scale": -1.3}),
        (1003, {"softcap": 8.0}),
        (1003, {"bias": True, "softcap": 8.0, "scale": 0.7}),
        (5000, {"scale": -1.3}),  # summed in segments, as the next one
        (5000, {"softcap": 8.0}),
    ],
)
def test_a_model_has_exactly_no_divergence_from_itself(
    form: dict[str, float], vocabulary: int, precision: Precision
) -> None:
    head = make_head(vocabulary, 65, spread=6.0, **form)  # type: ignore[arg-type]
    twin = replace(head, weight_VD=head.weight_VD.clone())
    h = hidden_states(300, 65)
    found = values_of(Case(head, twin, h, h.clone(), torch.arange(300) % vocabulary), precision)
    for name in DIVERGENCES:
        assert not getattr(found, name).any(), name
    assert found.top1_agree.all()
    assert (found.overlap5 == min(5, vocabulary)).all()
    assert (found.overlap10 == min(10, vocabulary)).all()
    assert (found.rank_of_reference_top == 1).all()
    assert np.array_equal(found.logp_reference, found.logp_candidate)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("softcap", [None, 8.0])
def test_heads_that_differ_where_the_states_are_zero_do_not_diverge(
    softcap: float | None, precision: Precision
) -> None:
    head = make_head(1003, 65, spread=6.0, softcap=softcap)
    h, weight_VD = hidden_states(300, 65), head.weight_VD.clone()
    h[:, 3] = 0
    weight_VD[:, 3] += 1
    found = values_of(Case(head, replace(head, weight_VD=weight_VD), h, h, torch.arange(300)), precision)
    for name in DIVERGENCES:
        assert not getattr(found, name).any(), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("softcap", [None, 8.0])
def test_equal_logits_of_states_of_two_widths_differ_by_rounding_alone(
    softcap: float | None, precision: Precision
) -> None:
    """As docs/divergence.md says: this form subtracts within one product, whose order the processor decides."""
    head = make_head(1003, 65, spread=6.0, softcap=softcap)
    wide = replace(head, weight_VD=torch.cat([head.weight_VD, torch.zeros(1003, 31, dtype=torch.bfloat16)], dim=1))
    h = hidden_states(300, 65)
    k = torch.cat([h, hidden_states(300, 31, seed=4)], dim=1)
    found = values_of(Case(head, wide, h, k, torch.arange(300)), precision)
    for name in DIVERGENCES:
        assert getattr(found, name).max() < (1e-5 if name == "tv" else 1e-10), name


@pytest.mark.parametrize("heads", ["plain", "bias, soft cap and scale"])
def test_no_divergence_of_equal_rows_depends_on_the_order_in_which_a_compiler_adds(heads: str) -> None:
    head, h = HEADS[heads][0], hidden_states(200, 64)
    divergence = Divergence(head, head, device="cpu")
    in_order = divergence._graphs.normalise

    def in_another_order(*tile: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sum_a, sum_b, moved = in_order(*tile)
        return sum_a, sum_b * (1 + 1e-6), moved

    divergence._graphs = replace(divergence._graphs, normalise=in_another_order)
    found = divergence(h, h.clone(), torch.arange(200))
    for name in DIVERGENCES:
        assert not getattr(found, name).any(), name
    assert divergence(h, disturbed(h, 0.01), torch.arange(200)).kl.min() > 0


def two_token_case(odds: float, other_odds: float) -> Case:
    """Distributions (p, 1 − p) over two tokens, from their odds."""
    head = Head(torch.tensor([[1.0], [0.0]]), None, 1.0, None, "two")
    states = [torch.tensor([[math.log(value)]]) for value in (odds, other_odds)]
    return Case(head, head, states[0], states[1], torch.tensor([0]))


def test_two_tokens_by_hand() -> None:
    """p = (¾, ¼), q = (¼, ¾): both KL are ½·ln 3, TV is ½, JS is ln 2 less the entropy of (¾, ¼)."""
    found = values_of(two_token_case(3.0, 1 / 3), "float32")
    assert found.kl[0] == pytest.approx(0.5 * math.log(3), rel=1e-6)
    assert found.reverse_kl[0] == pytest.approx(0.5 * math.log(3), rel=1e-6)
    assert found.tv[0] == pytest.approx(0.5, rel=1e-6)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.js[0] == pytest.approx(math.log(2) - entropy, rel=1e-6)
    assert found.entropy_reference[0] == pytest.approx(entropy, rel=1e-6)
    assert found.logp_reference[0] == pytest.approx(math.log(0.75), rel=1e-6)
    assert found.logp_candidate[0] == pytest.approx(math.log(0.25), rel=1e-6)
    assert found.top_probability_reference[0] == pytest.approx(0.75, rel=1e-6)
    assert (found.top_reference[0], found.top_candidate[0], bool(found.top1_agree[0])) == (0, 1, False)
    assert (found.rank_of_reference_top[0], found.rank_token_reference[0], found.rank_token_candidate[0]) == (2, 1, 2)


@pytest.mark.parametrize("heads", ["plain", "bias", "soft cap", "weights differ", "widths differ"])
def test_every_count_is_exact_in_float32(heads: str) -> None:
    given_case = case(*HEADS[heads], 200, by=0.2)
    found, right = values_of(given_case, "float32"), given_case.oracle()
    for name in COUNTS:
        # Ranks among the many: two logits may lie closer than float32 tells.
        wrong = np.flatnonzero(getattr(found, name) != right[name])
        assert len(wrong) <= (2 if name.startswith("rank_token") else 0), name


def test_tops_and_overlaps_are_exact_in_fast_precision_too() -> None:
    """Rounded logits tie for the first place in one position of twenty; refined ones do not."""
    head = make_head(4096, 64, spread=6.0)
    given_case = case(head, head, 400, by=0.02)
    found, right = values_of(given_case, "fast"), given_case.oracle()
    for name in ("top_reference", "top_candidate", "top1_agree", "overlap5"):
        assert np.array_equal(getattr(found, name), right[name]), name
    # The tenth and the thirteenth may lie closer than rounding tells.
    assert np.mean(found.overlap10 == right["overlap10"]) > 0.99
    assert np.mean(found.rank_of_reference_top == right["rank_of_reference_top"]) > 0.99
    rounded = logits64(head, given_case.reference_TD).bfloat16().float()
    first, second = rounded.topk(2).values.T
    assert int((first == second).sum()) > 4  # else this test shows nothing


@pytest.mark.parametrize("where", ["one block", "a block each", "the last block", "both ends"])
def test_the_ten_largest_are_found_wherever_they_lie(where: str) -> None:
    vocabulary = 64 * 40 + 17
    ids = {
        "one block": np.arange(10) + 130,
        "a block each": np.arange(10) * 64 + 5,
        "the last block": vocabulary - 1 - np.arange(10),
        "both ends": np.concatenate([np.arange(5), vocabulary - 1 - np.arange(5)]),
    }[where]
    weight = torch.zeros(vocabulary, 2)
    weight[:, 0] = torch.linspace(-1, 0, vocabulary)
    weight[ids, 0] = torch.linspace(5, 4, 10)
    weight[ids, 1] = torch.linspace(0, 1.5, 10)
    head = Head(weight.bfloat16(), None, 1.0, None, "by hand")
    states = torch.tensor([[1.0, 0.0]]).bfloat16(), torch.tensor([[1.0, 1.0]]).bfloat16()
    for precision in PRECISIONS:
        given_case = Case(head, head, *states, torch.tensor([int(ids[3])]))
        found, right = values_of(given_case, precision), given_case.oracle()
        for name in COUNTS:
            assert getattr(found, name)[0] == right[name][0], name
        assert found.top_reference[0] == ids[0]
        assert found.top_candidate[0] == ids[9]


def test_equal_logits_are_ordered_by_token_id_and_share_a_rank() -> None:
    weight = torch.zeros(300, 4)
    weight[[17, 250, 120]] = 1.0
    head = Head(weight.bfloat16(), None, 1.0, None, "ties")
    h = torch.ones(1, 4).bfloat16()
    found = values_of(Case(head, head, h, h, torch.tensor([250])), "fast")
    assert found.top_reference[0] == found.top_candidate[0] == 17
    assert found.rank_token_reference[0] == found.rank_token_candidate[0] == 1
    assert found.overlap10[0] == 10


def test_the_last_chunk_is_as_good_as_any() -> None:
    """Whatever the number of positions, and however they are divided, the values are the same bits."""
    chunk = CHUNK["cpu"]
    given_case = case(PLAIN, PLAIN, 2 * chunk + 44, by=0.05)
    divergence = Divergence(PLAIN, PLAIN, device="cpu")
    h, k, tokens = given_case.reference_TD, given_case.candidate_TD, given_case.next_T
    whole = divergence(h, k, tokens)
    for cuts in ([0, 1, chunk, 2 * chunk + 44], [0, chunk - 1, chunk + 1, 2 * chunk + 44]):
        parts = [divergence(h[a:b], k[a:b], tokens[a:b].numpy()) for a, b in itertools.pairwise(cuts)]
        joined = TokenValues.concat(parts)
        for name in FIELDS:
            assert np.array_equal(getattr(whole, name), getattr(joined, name)), name


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    spread=st.floats(0.01, 60),
    by=st.floats(0, 2),
    vocabulary=st.integers(2, 90),
    seed=st.integers(0, 1000),
    precision=st.sampled_from(PRECISIONS),
)
def test_values_stay_where_they_must(
    spread: float, by: float, vocabulary: int, seed: int, precision: Precision
) -> None:
    head = make_head(vocabulary, 8, spread=spread, seed=seed)
    found = values_of(case(head, head, 12, by=by, seed=seed), precision)
    assert found.finite.all()
    for name in DIVERGENCES:
        assert getattr(found, name).min() >= 0
    assert found.tv.max() <= 1
    assert found.js.max() <= math.log(2) + 1e-5
    assert max(found.logp_reference.max(), found.logp_candidate.max()) <= 0
    assert found.top_probability_reference.max() <= 1
    assert found.entropy_reference.max() <= math.log(vocabulary) * (1 + 1e-5) + 1e-6
    # Pinsker, and JS ≤ half the sum of both KL over four (Jeffreys).
    assert (2 * found.tv.astype(np.float64) ** 2 <= found.kl * (1 + 1e-3) + 1e-9).all()
    assert (found.js <= (found.kl + found.reverse_kl) / 4 * (1 + 1e-3) + 1e-9).all()
    for name in ("rank_of_reference_top", "rank_token_reference", "rank_token_candidate"):
        assert 1 <= getattr(found, name).min() <= getattr(found, name).max() <= vocabulary


def test_float32_stays_float32_where_the_process_has_allowed_less() -> None:
    given_case = case(PLAIN, PLAIN, 200, by=0.01)
    torch.set_float32_matmul_precision("medium")  # bf16 products on this kind of CPU
    try:
        assert_means(given_case, "float32")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("before", [True, False, (False, False)])
def test_on_a_gpu_partial_sums_are_float32_while_it_runs_and_as_before_afterwards(
    before: bool | tuple[bool, bool],
) -> None:
    """The pair is what batch invariance sets: no split sums at all."""
    allowed = torch._C._get_cublas_allow_bf16_reduced_precision_reduction  # both values; the public name has the first
    given_case = case(PLAIN, PLAIN, 2, by=0.01)
    seen: list[object] = []
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = before  # type: ignore[assignment]
    try:
        found = allowed()
        Divergence(PLAIN, PLAIN, device="cpu")(
            given_case.reference_TD,
            given_case.candidate_TD,
            given_case.next_T,
            check_cancelled=lambda: seen.append(allowed()),
        )
        assert allowed() == found
    finally:
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    assert seen == [(False, isinstance(before, bool))]


def test_vocabularies_must_be_of_one_size() -> None:
    with pytest.raises(HemostatError) as caught:
        Divergence(PLAIN, make_head(1001, 64), device="cpu")
    assert caught.value.code == ErrorCode.VOCABULARY_MISMATCH
    assert "1000" in caught.value.detail
    assert "1001" in caught.value.detail


@pytest.mark.parametrize(("none", "computed"), [(True, "float32"), (False, "fast")])
def test_a_processor_without_products_of_bf16_computes_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, none: bool, computed: str
) -> None:
    monkeypatch.setattr(divergence_module, "lacking", lambda _: none)
    assert arithmetic("fast", "cpu") == computed
    assert arithmetic("float32", "cpu") == "float32"
    assert arithmetic("fast", "cuda") == "fast"
