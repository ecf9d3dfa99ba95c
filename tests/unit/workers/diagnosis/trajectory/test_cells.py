"""One decoder of one candidate: a cell from texts and values made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.support.values import random_values
from workers.decoding.model import Continuation
from workers.diagnosis.trajectory.cells import Path, amplification, cell, text_change, text_statistics
from workers.distributions.token_values import Positions, TokenValues
from workers.measuring.summary import summarize

OURS = [(1, 2, 3, 4), (5, 6, 7, 8), (1, 1, 1, 1)]
THEIRS = [(1, 2, 9, 9), (5, 6, 7, 8), (2, 1, 1)]


def path(texts, kl, own, **columns):
    """`kl` and columns by text; texts of fewer than four tokens ended."""
    values = [
        replace(
            random_values(len(text), seed=number),
            kl=np.asarray(one, dtype=np.float64),
            **{name: column[number] for name, column in columns.items()},
        )
        for number, (text, one) in enumerate(zip(texts, kl, strict=True))
    ]
    return Path([Continuation(text, len(text) < 4) for text in texts], values, own)


def cell_of(ours, theirs, *, most, **options):
    return cell("greedy", 0, ours, theirs, most=most, seed=0, **options)


@pytest.fixture
def ours():
    agree = [np.array([True, True, False, True]), np.array([True] * 4), np.array([False, True, True, True])]
    return path(OURS, [[0.1] * 4, [0.2] * 4, [0.3] * 4], "reference", top1_agree=agree)


@pytest.fixture
def theirs():
    return path(THEIRS, [[0.1, 0.1, 0.5, 0.9], [0.2] * 4, [0.3, 0.6, 0.6]], "candidate")


def test_both_factors_are_over_the_positions_that_both_texts_have(ours, theirs):
    found = amplification(ours, theirs, seed=0)
    # Prompt 3: three positions, because the candidate's text ended after them.
    assert found.kl.value == pytest.approx((1.6 + 0.8 + 1.5) / (0.4 + 0.8 + 0.9))
    assert found.kl_candidate_text.mean == pytest.approx((1.6 + 0.8 + 1.5) / 11)
    assert found.kl_reference_text.mean == pytest.approx((0.4 + 0.8 + 0.9) / 11)  # of whole texts it is 2.4 / 12
    assert found.tokens.value == pytest.approx((2 + 0 + 1) / (1 + 0 + 1))
    assert found.one_step.mean == pytest.approx(2 / 11)
    assert found.free.mean == pytest.approx(3 / 11)


def test_one_quantity_has_one_interval_where_all_texts_are_equally_long():
    """KL, and the share of most likely tokens that differ, are then those of the whole texts, and of the report's
    blocks."""
    rng = np.random.default_rng(3)
    texts = [[tuple(rng.integers(0, 5, 4).tolist()) for _ in range(12)] for _ in range(2)]
    kl = [rng.exponential(1.0, (12, 4)) * rng.exponential(1.0, (12, 1)) for _ in range(2)]
    ours, theirs = path(texts[0], kl[0], "reference"), path(texts[1], kl[1], "candidate")
    found, whole = amplification(ours, theirs, seed=0), cell_of(ours, theirs, most=4)
    assert found.kl_reference_text == whole.kl_reference_text
    assert found.kl_candidate_text == whole.kl_candidate_text
    prompts = np.repeat(np.arange(12), 4)
    positions = Positions(prompts, prompts, np.tile(np.arange(4), 12), np.tile(np.arange(4), 12), np.zeros(48, int))
    blocks = summarize(TokenValues.concat(ours.values), positions, ["x"] * 12, window=64)
    assert found.kl_reference_text.ci == blocks.divergence.kl.ci
    low, high = blocks.top1_agreement.ci
    assert found.one_step.ci == pytest.approx((1 - high, 1 - low))
    written = text_statistics(ours, most=4, seed=0)
    assert written.entropy.ci == blocks.entropy.reference.ci


def test_positions_that_are_not_finite_are_left_out_of_both_sides(ours):
    broken = path(THEIRS, [[0.1, np.nan, 0.5, 0.9], [0.2] * 4, [0.3, 0.6, 0.6]], "candidate")
    found = amplification(ours, broken, seed=0)
    assert found.kl.value == pytest.approx((1.5 + 0.8 + 1.5) / (0.3 + 0.8 + 0.9))


def test_no_damage_is_concluded_where_there_is_none_on_either_text(theirs):
    exact = path(OURS, [[0.0] * 4] * 3, "reference")
    found = amplification(exact, theirs, seed=0)
    assert (found.kl.value, found.kl_reference_text.mean, found.conclusion) == (None, 0, "open")
    assert found.kl_candidate_text.mean > 0
    same = path(OURS, [[0.0] * 4] * 3, "candidate")
    assert amplification(exact, same, seed=0).conclusion == "no_damage"


def test_a_cell_tells_where_texts_part(ours, theirs):
    found = cell_of(ours, theirs, most=4)
    first = found.first_divergence
    assert first.diverged.mean == pytest.approx(2 / 3)
    assert first.median == 3
    assert first.shared_prefix.mean == pytest.approx((2 + 4 + 0) / 3)
    assert [point.share for point in found.survival] == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert found.kl_reference_text.mean == pytest.approx(2.4 / 12)
    assert found.kl_candidate_text.mean == pytest.approx((1.6 + 0.8 + 1.5) / 11)
    (edit,) = found.edit_distance
    assert edit.tokens == 4
    assert edit.distance.mean == pytest.approx((2 / 4 + 0 + 2 / 4) / 3)
    (band,) = found.along
    assert (band.first, band.last) == (1, 4)
    assert band.disagreement.mean == pytest.approx(3 / 11)


def test_text_statistics_are_of_the_writer(theirs):
    found = text_statistics(theirs, most=4, seed=0)
    assert found.length.mean == pytest.approx(11 / 3)
    assert found.ended.mean == pytest.approx(1 / 3)
    assert found.repetition["1"].mean == pytest.approx((1 / 4 + 0 + 1 / 3) / 3)
    own = np.concatenate([values.entropy_candidate for values in theirs.values])
    assert found.entropy.mean == pytest.approx(float(own.mean()))
    surprise = np.concatenate([-values.logp_candidate for values in theirs.values])
    assert found.surprise.mean == pytest.approx(float(surprise.mean()))


def test_changes_are_paired_by_prompt(ours, theirs):
    change = text_change(ours, theirs, most=4, seed=0)
    assert change.length.mean == pytest.approx(-1 / 3)
    assert change.ended.mean == pytest.approx(1 / 3)
    assert change.repetition["1"].mean == pytest.approx(((1 / 4 - 0) + 0 + (1 / 3 - 3 / 4)) / 3)


def test_a_text_without_an_ngram_is_left_out_and_not_counted_as_none_repeated(ours):
    short = path([(1, 1), (5, 5, 5, 5), (1, 1, 1, 1)], [[0.1] * 2, [0.2] * 4, [0.3] * 4], "candidate")
    assert text_statistics(short, most=4, seed=0).repetition["3"].mean == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert text_statistics(short, most=4, seed=0).repetition["2"].mean == pytest.approx((0 + 2 / 3 + 2 / 3) / 3)
    assert text_change(ours, short, most=4, seed=0).repetition["3"].mean == pytest.approx(
        ((1 / 2 - 0) + (1 / 2 - 1 / 2)) / 2
    )
    none = path([(1,), (2, 3), (4,)], [[0.1], [0.2] * 2, [0.3]], "candidate")
    found = text_statistics(none, most=4, seed=0)
    assert found.repetition["4"].mean is None
    assert found.length.mean == pytest.approx(4 / 3)


def test_equal_texts_change_nothing_and_say_not_how_far_others_might(ours):
    same = Path(ours.texts, ours.values, "reference")
    change = text_change(ours, same, most=4, seed=0)
    for mean in (change.length, change.distinct, change.entropy, change.surprise, change.reference_surprise):
        assert mean.mean == 0
        assert mean.ci is None
    assert cell_of(ours, same, most=4).first_divergence.diverged.mean == 0


def test_texts_that_part_where_one_ends_tell_nothing_of_what_follows():
    """All that both hold is read after the same tokens: no factor of eight such prompts has an interval."""
    kl = [[0.1 * (1 + number)] * 6 for number in range(8)]
    ours = path([(1, 2, 3, 4, 5, 6)] * 8, kl, "reference")
    ended = path([(1, 2, 9)] * 8, [[value * 1.001 for value in one[:3]] for one in kl], "candidate")
    gone_on = path([(1, 9, 3)] * 8, [[value * 1.2 for value in one[:3]] for one in kl], "candidate")
    assert amplification(ours, ended, seed=0).kl.ci is None
    assert amplification(ours, gone_on, seed=0).kl.ci is not None


def texts_of(lengths, own):
    """Texts of these lengths, at most 32 tokens, no token of which comes twice."""
    return path([tuple(range(length)) for length in lengths], [[0.1] * length for length in lengths], own)


def test_no_interval_of_a_length_passes_the_most_tokens():
    reference, capped = texts_of([27] + [32] * 7, "reference"), texts_of([32] * 8, "candidate")
    length = text_statistics(reference, most=32, seed=0).length
    assert length.mean == pytest.approx(31.375)
    assert length.ci[0] < length.mean < length.ci[1] == 32
    longer = text_change(reference, capped, most=32, seed=0).length
    assert longer.mean == pytest.approx(0.625)
    # After other prompts the candidate's may end sooner, as its own interval says: none of eight did.
    assert longer.ci[0] < 0 < longer.mean < longer.ci[1] <= 31
    shorter = text_change(capped, texts_of([27] + [32] * 7, "candidate"), most=32, seed=0).length
    assert shorter.ci == pytest.approx((-longer.ci[1], -longer.ci[0]))
    assert text_change(capped, texts_of([32] * 8, "candidate"), most=32, seed=0).length.ci is None


def test_what_is_the_same_after_every_prompt_has_the_width_of_so_few_prompts():
    """Of yes or no, the exact binomial interval: 0 and 8 of 8."""
    ours, theirs = texts_of([32] * 8, "reference"), path([(99,) * 32] * 8, [[0.2] * 32] * 8, "candidate")
    most = stats.binomtest(0, 8).proportion_ci(0.95, "exact").high
    found = cell_of(ours, theirs, most=32)
    assert found.edit_distance[-1].distance.ci == pytest.approx((1 - most, 1))
    assert found.amplification.free.ci == pytest.approx((1 - most, 1))
    assert found.text.repetition["4"].mean == pytest.approx(28 / 29)
    assert found.text.repetition["4"].ci == pytest.approx((28 / 29 * (1 - most), 28 / 29 + most / 29))
    assert text_statistics(ours, most=32, seed=0).repetition["4"].ci == pytest.approx((0, most))
    assert found.text.length.ci == pytest.approx((32 - most * 31, 32))
