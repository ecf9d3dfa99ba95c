"""Whether texts part at tokens of a class: against every way of dealing the places, written out, and by its level."""

from itertools import permutations

import numpy as np
import pytest

from workers.diagnosis.trajectory.breaking import breaking


def mask(marks):
    return np.asarray([mark == "x" for mark in marks])


def by_hand(masks, first):
    """Expected share and two-sided p-value over all permutations that give each place to a text long enough for it."""
    parted = [(one, at) for one, at in zip(masks, first, strict=True) if at is not None]
    texts, times = [one for one, _ in parted], [at for _, at in parted]
    counts = [
        sum(bool(text[at - 1]) for text, at in zip(dealt, times, strict=True))
        for dealt in permutations(texts)
        if all(len(text) >= at for text, at in zip(dealt, times, strict=True))
    ]
    own = sum(bool(text[at - 1]) for text, at in parted)
    above, below = np.mean([one >= own for one in counts]), np.mean([one <= own for one in counts])
    return float(np.mean(counts)) / len(times), float(min(1.0, 2 * min(above, below)))


def test_the_places_are_dealt_to_every_text_that_is_long_enough():
    masks = [mask(marks) for marks in ("..x...", ".x.x", "x..", "....x.", "xx....x", "...")]
    first = [3, 2, 1, 5, 7, None]
    (found,) = breaking([masks], first, permutations=40_000)
    share, p = by_hand(masks, first)
    assert found.by_place == pytest.approx(share, abs=0.005)
    assert found.p_value == pytest.approx(p, abs=0.01)


def test_texts_that_part_at_the_class_wherever_it_stands_are_told_from_its_places():
    rng = np.random.default_rng(0)
    masks = [rng.permutation(mask("x" + "." * 19)) for _ in range(16)]
    first = [int(np.argmax(one)) + 1 for one in masks]
    found, none = breaking([masks, [~one for one in masks]], first)
    assert found.by_place < 0.25
    assert found.p_value < 0.001
    assert none.p_value == pytest.approx(found.p_value)


def test_a_class_at_the_same_places_of_every_text_says_nothing_beyond_the_place():
    masks = [mask("xxxx......") for _ in range(12)]
    (found,) = breaking([masks], [1, 2, 3, 4] * 3)
    assert found.by_place == 1
    assert found.p_value is None


def test_a_place_behind_the_text_is_refused():
    with pytest.raises(ValueError, match="token 3 of 2"):
        breaking([[mask("x."), mask(".x")]], [3, 1])


def test_by_chance_at_most_one_in_twenty_is_called_different():
    """Chances that fall with the place and differ between prompts, in texts of unequal length; the class stands early
    in them, in more or fewer tokens of each. A test of two shares of tokens calls more than one in twenty different."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(400):
        masks, first = [], []
        for _ in range(16):
            length = int(rng.integers(10, 60))
            place = np.arange(length)
            masks.append(rng.random(length) < rng.beta(1, 2) * np.exp(-place / 20))
            parts = rng.random(length) < 0.15 * rng.gamma(1.0) * np.exp(-place / 30)
            first.append(int(np.argmax(parts)) + 1 if parts.any() else None)
        (found,) = breaking([masks], first, permutations=400)
        wrong += found is not None and found.p_value is not None and found.p_value < 0.05
    assert wrong / 400 < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 400)
