"""Attention and cascades on hand-made attributions."""

import pytest

from examples.paper.finding import NoNumberError
from examples.paper.rulings.inside import attention, cascade
from examples.paper.rulings.reports import Reports
from tests.support.paper_reports import inside

KL = (0.5, 0.5, 0.5)


def shifted(early, middle, late, rounded=0.1, pruned=0.15):
    given = {
        "duplicated-early": early,
        "duplicated-middle": middle,
        "duplicated-late": late,
        "rounded-inside": rounded,
        "pruned-inside": pruned,
    }
    return Reports({job: inside(js=(js, 0.95 * js, 1.05 * js), kl=KL) for job, js in given.items()})


@pytest.mark.parametrize(
    ("expanded", "outcome"),
    [
        ((0.3, 0.3, 0.3), "confirmed"),
        ((0.01, 0.01, 0.12), "refuted"),
        ((0.3, 0.12, 0.12), "not identifiable"),
        ((0.12, 0.12, 0.12), "not identifiable"),
    ],
)
def test_expansions_disrupt_where_they_lie_above_both_compressed_models(expanded, outcome):
    assert attention(shifted(*expanded)).outcome == outcome


def test_the_ratio_takes_both_intervals_at_their_unfavourable_ends():
    reports = shifted(0.3, 0.3, 0.3)
    wide = Reports(reports.by_job | {"duplicated-early": inside(js=(0.3, 0.2, 0.4), kl=(0.5, 0.4, 0.8))})
    first = attention(wide).figures[0]
    assert first.value == pytest.approx(0.6)
    assert first.ci == pytest.approx((0.25, 1.0))


def test_a_model_without_damage_has_no_ratio():
    reports = shifted(0.3, 0.3, 0.3)
    with pytest.raises(NoNumberError, match="reaches 0"):
        attention(Reports(reports.by_job | {"rounded-inside": inside(kl=(0.0, 0.0, 0.1))}))


def test_blocks_that_are_not_there_are_named_with_the_reason():
    bare = inside()
    assert bare.internals is not None
    without = bare.model_copy(
        update={"internals": bare.internals.model_copy(update={"activations": None, "not_measured": ("no room",)})}
    )
    with pytest.raises(NoNumberError, match="four bits: activations were not measured: no room"):
        cascade(Reports({"rounded-inside": without, "pruned-inside": bare}))


@pytest.mark.parametrize(
    ("rounded", "pruned", "outcome"),
    [
        ((2, 1.5, 2.5), (3, 2, 4), "confirmed"),
        ((0.5, 0.4, 0.6), (0.7, 0.6, 0.8), "refuted"),
        ((2, 0.9, 2.5), (3, 2, 4), "not identifiable"),
    ],
)
def test_the_cascade_of_both_models_against_one(rounded, pruned, outcome):
    reports = Reports({"rounded-inside": inside(cascade=rounded), "pruned-inside": inside(cascade=pruned)})
    assert cascade(reports).outcome == outcome


GROWS, OPEN, DAMPS = (1.2, 1.1, 1.3), (1.05, 0.9, 1.2), (0.9, 0.8, 0.95)


@pytest.mark.parametrize(
    ("rounded", "pruned", "outcome"),
    [
        ((GROWS, GROWS, OPEN), (GROWS, GROWS, DAMPS), "confirmed"),
        ((GROWS, OPEN, OPEN, GROWS), (GROWS, GROWS), "not identifiable"),
        ((DAMPS, DAMPS, GROWS), (DAMPS, DAMPS, OPEN), "refuted"),
    ],
)
def test_errors_that_add_up_are_no_cascade_unless_layers_make_them_grow(rounded, pruned, outcome):
    reports = Reports({"rounded-inside": inside(amplified=rounded), "pruned-inside": inside(amplified=pruned)})
    finding = cascade(reports)
    assert finding.outcome == outcome
    grown = [sum(one == GROWS for one in steps) for steps in (rounded, pruned)]
    assert f"Four bits: {grown[0]} of {len(rounded)} layers amplify the incoming error" in finding.sentence
    assert f"Half zeros, Wanda: {grown[1]} of {len(pruned)} layers" in finding.sentence


def test_a_model_whose_layers_are_entered_by_no_error_has_no_cascade():
    bare = inside(amplified=())
    with pytest.raises(NoNumberError, match="four bits: no layer has an amplification"):
        cascade(Reports({"rounded-inside": bare, "pruned-inside": inside()}))
