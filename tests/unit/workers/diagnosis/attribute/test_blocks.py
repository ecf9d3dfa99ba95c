"""From sums by document to the blocks of a report: every figure with its interval, seeded and blind to order."""

import numpy as np
import pytest

from app.kinds.attribute.blocks import Measured
from workers.diagnosis.attribute.attention import AttentionShift, Looks
from workers.diagnosis.attribute.blocks import DRAWS, attention_block, routing_block
from workers.diagnosis.attribute.moe import RoutingShift
from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.distributions import intervals
from workers.process.handler import JobCancelled

TEXT = Measured(windows=12, tokens=120, documents=12)
PAIRS, HEADS, EXPERTS = 2, 3, 4


def drawn(rng, order, *shape):
    """Shares of ten queries a window, each window a document of its own."""
    sums = Sums(Clusters.of(range(len(order))), shape)
    values = rng.beta(2, 5, (len(order), *shape)) * 10
    sums.add(0, values[order], np.full((len(order), *shape), 10.0))
    return sums


def attention(order):
    rng = np.random.default_rng(8)
    looks = [Looks(*(drawn(rng, order, PAIRS, HEADS) for _ in range(3))) for _ in range(2)]
    kl, js, tv = (drawn(rng, order, PAIRS, HEADS) for _ in range(3))
    partner_PH = np.array([[0, 1, 2], [2, 0, 1]])
    return AttentionShift(((0, 0), (1, 1)), kl, js, tv, looks[0], looks[1], partner_PH)


def routing(order):
    rng = np.random.default_rng(9)
    plain = [drawn(rng, order, PAIRS) for _ in range(6)]
    loads = []
    for _ in range(2):
        sums = Sums(Clusters.of(range(len(order))), (PAIRS, EXPERTS))
        counts = rng.multinomial(40, [0.1, 0.2, 0.3, 0.4], (len(order), PAIRS)).astype(float)[order]
        sums.add(0, counts, np.broadcast_to(counts.sum(-1, keepdims=True), counts.shape))
        loads.append(sums)
    return RoutingShift((0, 1), EXPERTS, (2, 2), *plain, *loads)


def expected(sums, *at):
    """By the intervals of single values, one a query of each document."""
    values = np.repeat(np.moveaxis(sums.top, 0, -1)[at] / 10, 10)
    (found,) = intervals.Clusters(np.repeat(np.arange(len(sums.top)), 10), "documents").means([values], seed=5)
    assert found.interval is not None
    return found.mean, found.interval


def test_every_figure_of_a_head_has_the_interval_of_its_own_queries():
    found = attention(np.arange(12))
    block = attention_block(found, TEXT, seed=5)
    for index, layer in enumerate(block.layers):
        for head in layer.heads:
            own, partner = (index, head.head), (index, int(found.partner_PH[index, head.head]))
            assert head.partner == partner[1]
            told = [
                (found.kl, own, head.kl, head.kl_ci),
                (found.tv, own, head.tv, head.tv_ci),
                (found.reference.sink, partner, head.sink.reference, head.sink.reference_ci),
                (found.candidate.sink, own, head.sink.candidate, head.sink.candidate_ci),
                (found.reference.entropy, partner, head.entropy.reference, head.entropy.reference_ci),
                (found.candidate.reach, own, head.range.candidate, head.range.candidate_ci),
            ]
            for sums, at, mean, ci in told:
                value, interval = expected(sums, *at)
                assert mean == pytest.approx(value)
                # Draws are shared with other heads, in whose company documents lie in another order.
                assert ci == pytest.approx(interval, rel=0.05)


@pytest.mark.parametrize(("kind", "limit"), [("attention", 2 * 3 * 3), ("routing", DRAWS)])
def test_between_the_figures_it_is_asked_whether_the_job_is_cancelled(kind, limit):
    """`limit`: of layers and heads, distances and looks of either model; of routing, draws."""
    asked = []

    def check():
        asked.append(None)
        if len(asked) == limit:
            raise JobCancelled

    make, of = (attention_block, attention) if kind == "attention" else (routing_block, routing)
    with pytest.raises(JobCancelled):
        make(of(np.arange(12)), TEXT, seed=5, check_cancelled=check)


@pytest.mark.parametrize("kind", ["attention", "routing"])
def test_blocks_are_seeded_and_know_no_order_of_documents(kind):
    def block(order, seed):
        if kind == "attention":
            return attention_block(attention(order), TEXT, seed=seed)
        return routing_block(routing(order), TEXT, seed=seed)

    plain, order = np.arange(12), np.random.default_rng(1).permutation(12)
    first = list(numbers(block(plain, 1).model_dump()))
    assert list(numbers(block(order, 1).model_dump())) == pytest.approx(first, rel=1e-9)
    assert list(numbers(block(plain, 2).model_dump())) != pytest.approx(first, rel=1e-9)


def numbers(part):
    """All numbers of a report's part, in order."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list | tuple):
        for one in part:
            yield from numbers(one)
    elif isinstance(part, float):
        yield part


def test_every_expert_has_its_load_with_an_interval():
    found = routing(np.arange(40))
    block = routing_block(found, TEXT, seed=5)
    for index, layer in enumerate(block.layers):
        for sums, loads, cis in (
            (found.load_reference, layer.load_reference, layer.load_reference_ci),
            (found.load_candidate, layer.load_candidate, layer.load_candidate_ci),
        ):
            share_KE = sums.top[:, index] / sums.bottom[:, index]
            assert loads == pytest.approx(share_KE.mean(0))
            assert len(cis) == EXPERTS
            error_E = share_KE.std(0, ddof=1) / np.sqrt(40)
            for ci, load, error in zip(cis, loads, error_E, strict=True):
                assert 0 <= ci[0] < load < ci[1] <= 1
                # Student's t with 39 degrees of freedom has 2.02 standard errors to each side.
                assert ci[1] - ci[0] == pytest.approx(4.04 * error, rel=0.2)


@pytest.mark.parametrize(("documents", "known"), [(5, False), (6, True)])
def test_the_shift_of_loads_has_an_interval_from_six_clusters_on(documents, known):
    block = routing_block(routing(np.arange(documents)), TEXT, seed=0)
    for layer in block.layers:
        assert (layer.load_shift.ci is not None) == known
        assert layer.load_shift.mean == pytest.approx(
            sum(abs(a - b) for a, b in zip(layer.load_reference, layer.load_candidate, strict=True)) / 2
        )
