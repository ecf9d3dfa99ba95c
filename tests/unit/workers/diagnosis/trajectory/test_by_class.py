"""Slices by kind of token: paths made by hand, whose sums are known."""

import numpy as np
import pytest
from scipy import stats

from workers.diagnosis.trajectory.by_class import first_by_class, kl_by_class, token_classes
from workers.measuring.classify import Classified
from workers.text.token_classes.catalogue import BY_TEXT, CLASSES


def classified(tokens, **marks):
    """Masks as marks, `x` for a token of the class; spaces only part the prompts."""
    masks = {name: np.zeros(tokens, dtype=np.bool_) for name in (*BY_TEXT, "rare")}
    for name, told in marks.items():
        masks[name] = np.asarray([mark == "x" for mark in told.replace(" ", "")])
        assert masks[name].size == tokens
    return Classified(masks)


KL = [np.array([1.0, 2.0, 4.0]), np.array([0.0, 8.0]), np.array([16.0, np.nan, 32.0])]
KINDS = classified(8, numbers="x.. .x x..", names="x.x .. .x.")


def test_kl_of_a_class_is_over_its_finite_tokens():
    numbers, names, none = kl_by_class(KL, KINDS, seed=0)
    assert [numbers.name, names.name, none.name] == ["numbers", "names", "none"]
    assert (numbers.tokens, numbers.prompts, numbers.nonfinite_positions) == (3, 3, 0)
    assert numbers.kl.mean == pytest.approx((1 + 8 + 16) / 3)
    assert numbers.share == pytest.approx(3 / 7)
    assert numbers.share_of_kl == pytest.approx(25 / 63)
    assert (names.tokens, names.prompts, names.nonfinite_positions) == (2, 1, 1)
    assert names.kl.mean == pytest.approx(2.5)
    assert names.kl.ci is None  # one prompt
    assert none.tokens == 3
    assert none.kl.mean == pytest.approx((2 + 0 + 32) / 3)
    assert (none.difference, none.p_value) == (None, None)


def test_a_class_and_its_difference_from_the_rest_give_the_whole():
    rng = np.random.default_rng(2)
    lengths = rng.integers(3, 20, 12)
    kl = [rng.exponential(1.0, length) for length in lengths]
    total = int(lengths.sum())
    marks = "".join(rng.choice(["x", "."], total))
    found = kl_by_class(kl, classified(total, numbers=marks, punctuation=marks[::-1]), seed=0)
    everything = np.concatenate(kl)
    for one in found[:-1]:
        assert one.difference.mean is not None
        rest = one.kl.mean - one.difference.mean
        assert one.tokens * one.kl.mean + (total - one.tokens) * rest == pytest.approx(everything.sum())
    either = np.asarray([a == "x" or b == "x" for a, b in zip(marks, marks[::-1], strict=True)])
    assert found[-1].tokens == total - either.sum()
    assert found[-1].kl.mean == pytest.approx(everything[~either].mean())


def test_p_values_are_adjusted_over_the_classes_of_the_path():
    """Two classes that are the same by token have the same raw p value: adjusted it is twice that of one alone."""
    rng = np.random.default_rng(4)
    marks = "".join(rng.choice(["x", "."], 120))
    larger = np.asarray([1.5 if mark == "x" else 1.0 for mark in marks])
    kl = list((larger * rng.exponential(1.0, 120)).reshape(12, 10))
    (alone, _) = kl_by_class(kl, classified(120, numbers=marks), seed=0)
    (one, other, _) = kl_by_class(kl, classified(120, numbers=marks, names=marks), seed=0)
    assert 0 < alone.p_value < 0.5
    assert one.p_value == other.p_value == pytest.approx(2 * alone.p_value)


def test_a_path_without_a_finite_token_has_no_means():
    numbers, none = kl_by_class([np.full(3, np.nan)], classified(3, numbers="x.."), seed=0)
    assert (numbers.tokens, numbers.nonfinite_positions, numbers.kl.mean, numbers.share_of_kl) == (0, 1, None, None)
    assert (none.tokens, none.nonfinite_positions) == (0, 2)


def test_first_divergences_are_counted_at_the_reference_s_tokens_at_risk():
    """Texts of four tokens after four prompts: parting at 2, never, at 1, and behind the reference's end."""
    found = first_by_class(
        [2, None, 1, 5],
        [4, 4, 4, 4],
        classified(16, numbers=".xxx x... x... ....", names="x..x ..x. .... ...x"),
        seed=0,
    )
    assert (found.parted, found.after_the_end, found.tokens) == (2, 1, 2 + 4 + 1 + 4)
    numbers, names, none = found.classes
    # At risk: `.x`, `x...`, `x`, `....` of numbers; `x.`, `..x.`, `.`, `...x` of names.
    assert (numbers.tokens, numbers.divergences) == (3, 2)
    assert numbers.share.mean == 1
    assert numbers.share.ci == pytest.approx(stats.binomtest(2, 2).proportion_ci(0.95, "exact"))
    assert (names.tokens, names.divergences, names.share.mean) == (3, 0, 0)
    assert (none.name, none.tokens, none.divergences, none.share_by_place, none.p_value) == ("none", 5, 0, None, None)


def test_kinds_that_break_the_path_are_told_from_those_that_do_not():
    """Every text parts at its one number, wherever that stands."""
    rng = np.random.default_rng(1)
    texts = ["".join(rng.permutation(["x", *"." * 19])) for _ in range(16)]
    first = [text.index("x") + 1 for text in texts]
    names = "".join(rng.choice(["x", "."], 320))
    number, name, _ = first_by_class(
        first, [20] * 16, classified(320, numbers="".join(texts), names=names), seed=0
    ).classes
    assert number.p_value < 0.001
    assert name.p_value > 0.05


def test_the_block_names_the_classes_that_some_path_has():
    found = token_classes([classified(2, numbers="x."), classified(3, rare="..x")], ())
    assert [one.name for one in found.classes] == ["numbers", "rare"]
    assert len(found.absent) == len(CLASSES) - 2
    assert "Names" in found.absent
