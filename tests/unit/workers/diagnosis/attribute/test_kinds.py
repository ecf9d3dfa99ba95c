"""How a part's nats spread over kinds of token, against sums by hand in float64."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from app.contracts.report import Mean
from app.kinds.attribute.blocks import SiteClass
from app.kinds.attribute.report import Site
from tests.support.attribute_reports import site
from workers.diagnosis.attribute.kinds import InsideKinds, Kinds, holm_over, inside_positions
from workers.diagnosis.attribute.subset import Subset
from workers.distributions.token_values import Positions
from workers.measuring.classify import Classified
from workers.measuring.means import POSITIVE, mean_of, ratio
from workers.text.token_classes.catalogue import CLASSES, NONE
from workers.text.windows import Corpus, Window

DOCUMENTS, WINDOWS, LENGTH = 8, 16, 30
T = WINDOWS * LENGTH


def positions(documents=DOCUMENTS, windows=WINDOWS):
    """Windows in a random order, as a subset has them."""
    window = np.repeat(np.random.default_rng(5).permutation(windows), LENGTH)
    nothing = np.zeros(len(window), dtype=np.int32)
    return Positions(window % documents, window, nothing, nothing, nothing)


def kinds(where, **masks):
    empty = np.zeros(len(where), dtype=np.bool_)
    found = Classified({one.name: masks.get(one.name, empty) for one in CLASSES}, np.zeros(len(where), dtype=np.int64))
    return Kinds.of(found, where, seed=0)


@pytest.fixture
def drawn():
    """Two kinds that share no token; numbers cost five times as much."""
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 5, T)
    kl = rng.gamma(2.0, 0.05, T) * np.where(kind == 0, 5.0, 1.0)
    return positions(), kind == 0, kind == 1, kl.astype(np.float32)


def test_means_and_shares_are_those_of_the_sums_and_disjoint_kinds_add_up(drawn):
    where, numbers, signs, kl = drawn
    found = {one.name: one for one in kinds(where, numbers=numbers, punctuation=signs).spread(kl)}
    assert list(found) == ["numbers", "punctuation", NONE]
    exact = kl.astype(np.float64)
    for name, mask in (("numbers", numbers), ("punctuation", signs), (NONE, ~numbers & ~signs)):
        one = found[name]
        assert one.tokens == mask.sum()
        assert one.nats.mean == pytest.approx(sum(map(float, exact[mask])) / mask.sum(), rel=1e-12)
        assert one.share == pytest.approx(sum(map(float, exact[mask])) / sum(map(float, exact)), rel=1e-12)
    assert sum(one.tokens * (one.nats.mean or 0.0) for one in found.values()) == pytest.approx(exact.sum(), rel=1e-12)
    assert sum(one.share or 0.0 for one in found.values()) == pytest.approx(1.0, rel=1e-12)


def test_intervals_are_those_of_a_mean_over_the_same_tokens_clustered_by_document(drawn):
    where, numbers, signs, kl = drawn
    (one, *_) = kinds(where, numbers=numbers, punctuation=signs).spread(kl)
    alone = mean_of(kl[numbers].astype(np.float64), where.select(numbers), seed=0, support=POSITIVE)
    assert one.nats.clusters == alone.clusters == "documents"
    # other quantities beside it order the clusters, and so the draws, anew
    assert one.nats.ci == pytest.approx(alone.ci, rel=1e-3)
    of_all = ratio(kl * numbers, kl, where, seed=0)
    assert one.share_ci == pytest.approx(of_all.ci, rel=1e-3)


def test_a_kind_in_few_of_many_documents_has_a_mean_and_neither_interval_nor_p_value():
    where, kl = positions(), np.full(T, 0.5, dtype=np.float32)
    kl[::7] = 1.0
    rare = np.isin(where.document, (0, 1, 2, 3, 4)) & (np.arange(T) % 3 == 0)
    (one, none) = kinds(where, rare=rare).spread(kl, judged=True)
    assert one.nats.mean is not None and one.difference.mean is not None
    assert (one.nats.ci, one.nats.clusters, one.difference.ci, one.p_value) == (None, None, None, None)
    assert none.nats.ci is not None


def test_of_a_part_that_saw_the_first_tokens_alone_only_these_count_and_of_these_the_finite_ones(drawn):
    where, numbers, signs, kl = drawn
    seen = T // 2
    first = kl[:seen].copy()
    first[np.flatnonzero(numbers[:seen])[:3]] = np.nan
    found = {one.name: one for one in kinds(where, numbers=numbers, punctuation=signs).spread(first)}
    used = numbers[:seen] & np.isfinite(first)
    assert found["numbers"].tokens == used.sum() == numbers[:seen].sum() - 3
    assert found["numbers"].nats.mean == pytest.approx(first[used].astype(np.float64).mean(), rel=1e-12)
    assert found["numbers"].share == pytest.approx(
        first[used].astype(np.float64).sum() / np.nansum(first.astype(np.float64)), rel=1e-12
    )


def test_a_kind_without_a_finite_token_is_left_out():
    where, kl = positions(), np.ones(T, dtype=np.float32)
    mask = np.zeros(T, dtype=np.bool_)
    mask[-4:] = True
    made = kinds(where, numbers=mask)
    assert [one.name for one in made.spread(kl[:-4])] == [NONE]
    kl[mask] = np.nan
    assert [one.name for one in made.spread(kl)] == [NONE]
    assert made.spread(np.full(T, np.nan, dtype=np.float32)) == ()


def test_a_kind_that_costs_more_is_told_from_one_that_does_not(drawn):
    where, numbers, signs, kl = drawn
    made = kinds(where, numbers=numbers, punctuation=signs)
    assert all((one.difference, one.p_value) == (None, None) for one in made.spread(kl))
    number, sign, none = made.spread(kl, judged=True)
    exact = kl.astype(np.float64)
    assert number.difference.mean == pytest.approx(exact[numbers].mean() - exact[~numbers].mean(), rel=1e-9)
    assert number.difference.ci[0] > 0
    assert number.p_value < 1e-4
    assert sign.p_value is not None and (sign.difference.mean or 0.0) < 0
    assert (none.difference, none.p_value) == (None, None)


def test_fewer_than_six_windows_have_neither_interval_nor_p_value():
    where = positions(documents=5, windows=5)
    rng = np.random.default_rng(2)
    mask = rng.random(len(where)) < 0.3
    one, _ = kinds(where, numbers=mask).spread(rng.random(len(where)).astype(np.float32), judged=True)
    assert one.nats.mean is not None and one.difference.mean is not None
    assert (one.nats.ci, one.share_ci, one.difference.ci, one.p_value) == (None, None, None, None)


def test_what_restoring_gains_may_be_a_loss_and_stands_beside_its_kind(drawn):
    where, numbers, signs, kl = drawn
    made = kinds(where, numbers=numbers, punctuation=signs)
    gain = np.where(signs, -0.25, 0.5)
    found = {one.name: one.restored for one in made.spread(kl, restored=made.means(gain))}
    assert {name: None if one is None else one.mean for name, one in found.items()} == {
        "numbers": 0.5,
        "punctuation": -0.25,
        NONE: 0.5,
    }


def test_p_values_are_adjusted_over_all_parts_by_the_rule_of_holm():
    def told(name, *p_values):
        classes = tuple(
            SiteClass(name=f"kind{n}", tokens=1, nats=Mean(mean=1.0, ci=None), share=None, p_value=p)
            for n, p in enumerate(p_values)
        )
        return Site.model_validate(site(name, 0.1)).model_copy(update={"classes": classes})

    made = holm_over([told("one", 0.01, None), told("none"), told("other", 0.04, 0.03)])
    assert [one.name for one in made] == ["one", "none", "other"]
    # three hypotheses: 3 · 0.01, then the larger of 2 · 0.03 and 1 · 0.04
    adjusted = [[one.p_value for one in part.classes] for part in made]
    assert adjusted == [[pytest.approx(0.03), None], [], [pytest.approx(0.06), pytest.approx(0.06)]]


def test_the_block_counts_kinds_on_the_subset_and_spreads_the_whole_candidate(drawn):
    where, numbers, signs, kl = drawn
    made = kinds(where, numbers=numbers, punctuation=signs)
    part = Site.model_validate(site("layers.0", 0.1)).model_copy(update={"classes": made.spread(kl, judged=True)})
    block = made.block(kl, [part, Site.model_validate(site("layers.1", 0.1))])
    assert [(one.name, one.tokens, one.documents) for one in block.classes] == [
        ("numbers", numbers.sum(), DOCUMENTS),
        ("punctuation", signs.sum(), DOCUMENTS),
    ]
    assert block.none == T - numbers.sum() - signs.sum()
    assert "JSON structure" in block.absent and "Numbers" not in block.absent
    assert (block.parts, block.judged) == (1, 2)
    assert block.whole == made.spread(kl)
    assert block.positions == T


def test_of_windows_that_gaps_are_measured_on_every_known_next_token_has_a_position():
    """A window as long as the cut, whose last token predicts nothing; one that goes on; one that begins late."""
    first = Window(0, 0, np.array([1, 10, 11, 12], dtype=np.int32), np.array([True, True, True]))
    second = Window(1, 3, np.array([1, 20, 21, 22, 23, 24], dtype=np.int32), np.array([False] * 3 + [True] * 2))
    corpus = cast("Corpus", SimpleNamespace(bos=1, windows=[second, first]))
    subset = cast("Subset", SimpleNamespace(windows=(1, 0), starts=(0, 2)))
    where, known_NL = inside_positions(corpus, subset, 2, 4)
    assert known_NL.tolist() == [[True, True, True, False], [True, True, True, False]]
    assert where.document.tolist() == [0, 0, 0, 1, 1, 1]
    assert where.token_id.tolist() == [10, 11, 12, 22, 23, 24]
    # among the document's tokens: the second window begins with its fourth, and is cut from the third token on
    assert where.position.tolist() == [0, 1, 2, 5, 6, 7]


def test_what_gaps_are_measured_on_counts_the_ends_of_windows_to_no_class():
    known_NL = np.array([[True, True, False], [True, True, True]])
    masks = {one.name: np.zeros(5, dtype=np.bool_) for one in CLASSES}
    masks["numbers"][[0, 4]] = True
    made = InsideKinds.of(Classified(masks, np.zeros(5, dtype=np.int64)), known_NL, np.array([3, 3]))
    assert {name: mask.tolist() for name, mask in made.masks.items()} == {
        "numbers": [[True, False, False], [False, False, True]],
        NONE: [[False, True, True], [True, True, False]],
    }
    gap = Site.model_validate(site("dropped layer 1", 0.1, kind="gap"))
    told = SiteClass(name="numbers", tokens=2, nats=Mean(mean=0.1, ci=None), share=0.5)
    block = made.block((told,), [gap.model_copy(update={"classes": (told,)})])
    assert (block.positions, block.none, block.parts) == (6, 4, 1)
    assert [(one.name, one.tokens, one.documents) for one in block.classes] == [("numbers", 2, 1)]
