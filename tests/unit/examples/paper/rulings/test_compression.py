"""Orders of methods, bits, on hand-made reports: each rule in each of its outcomes."""

import math

import pytest

from examples.paper.finding import NoNumberError
from examples.paper.rulings.compression import (
    cliff,
    four_bits,
    four_bits_against_pruning,
    half_size_order,
    pruning_order,
    steeper,
)
from examples.paper.rulings.reports import Reports
from tests.support.paper_reports import accuracies, answered, compared, differing, swept
from tests.support.published_decoding import (
    DECODERS,
    SCORES,
    SPREADS,
)
from tests.support.published_losses import MMLU


def near(value, share=0.01):
    return (value, value * (1 - share), value * (1 + share))


def exact(value):
    return (value, value, value)


HALF = {
    "half-eight-bits": 1.01,
    "half-wanda": 2.0,
    "half-4-of-8": 3.0,
    "half-2-of-4": 4.0,
    "half-layers": 50.0,
    "half-channels-heads": 20.0,
    "half-lowrank": 90.0,
}


def ordered_reports(ratios, p):
    """Comparisons with these perplexities over the original's, and their differences in ln perplexity."""
    pairs = {
        (one, other): exact(math.log(ratios[other] / ratios[one])) for one in ratios for other in ratios if one != other
    }
    return Reports({job: compared(near(ratio, 0.3)) for job, ratio in ratios.items()}, differing(pairs, p))


@pytest.mark.parametrize(
    ("changed", "p", "outcome"),
    [
        ({}, 0.01, "confirmed"),
        # Four comparisons: Holm needs the smallest p below 0.05 / 4.
        ({}, 0.02, "not identifiable"),
        ({"half-lowrank": 10.0}, 0.01, "refuted"),
        # The best of a family counts.
        ({"half-4-of-8": 60.0, "half-2-of-4": 5.0}, 0.01, "confirmed"),
    ],
)
def test_the_order_at_half_the_size(changed, p, outcome):
    finding = half_size_order(ordered_reports(HALF | changed, p))
    assert finding.outcome == outcome
    assert len(finding.figures) == 7 + 4


@pytest.mark.parametrize(
    ("wanda", "p", "outcome"),
    [(20.0, 0.008, "confirmed"), (20.0, 0.009, "not identifiable"), (5.0, 0.008, "refuted")],
)
def test_the_order_of_pruning_methods(wanda, p, outcome):
    """Six comparisons: Holm needs the smallest p below 0.05 / 6."""
    ratios = {}
    for percent in (60, 65, 70):
        ratios |= {f"sparsegpt-{percent}": 10.0, f"wanda-{percent}": 20.0, f"magnitude-{percent}": 100.0}
    finding = pruning_order(ordered_reports(ratios | {"wanda-65": wanda}, p))
    assert finding.outcome == outcome
    over = {figure.what: figure.value for figure in finding.figures[9:]}
    assert over["Magnitude at 65 % over Wanda at 65 %"] == pytest.approx(100.0 / wanda)


def bits(gptq, rtn=None):
    settings = (8, 4, 3, 2)
    return Reports(
        {
            "gptq-bits": swept(dict(zip(settings, gptq, strict=True))),
            "rtn-bits": swept(dict(zip(settings, rtn or gptq, strict=True))),
        }
    )


@pytest.mark.parametrize(
    ("three", "two", "outcome"),
    [
        ((1.2, 1.15, 1.24), (9.0, 8.0, 10.0), "confirmed"),
        ((1.3, 1.25, 1.35), (9.0, 8.0, 10.0), "refuted"),
        ((1.24, 1.2, 1.28), (9.0, 8.0, 10.0), "not identifiable"),
    ],
)
def test_the_cliff_between_three_and_two_bits(three, two, outcome):
    finding = cliff(bits((near(1.0), near(1.05), three, two)))
    assert finding.outcome == outcome
    assert [chart.name for chart in finding.charts] == ["cliff-gptq", "cliff-rtn"]


def test_the_limit_of_near_lossless_is_the_published_one():
    inside, outside = math.exp(0.217), math.exp(0.219)
    far = (9.0, 8.0, 10.0)
    assert cliff(bits((near(1.0), near(1.0), (inside, 1.0, inside), far))).outcome == "confirmed"
    assert cliff(bits((near(1.0), near(1.0), (outside, outside, 2.0), far))).outcome == "refuted"


@pytest.mark.parametrize(
    ("two", "outcome"),
    [
        (exact(math.exp(0.1 + 0.21)), "confirmed"),
        (exact(math.exp(0.1 + 0.19)), "refuted"),
        ((math.exp(0.1 + 0.21), math.exp(0.1 + 0.19), math.exp(0.1 + 0.23)), "not identifiable"),
    ],
)
def test_the_step_below_three_bits_against_twice_the_step_before(two, outcome):
    rows = (exact(1.0), exact(1.0), exact(math.exp(0.1)), two)
    assert steeper(bits(rows)).outcome == outcome


def test_one_method_that_is_not_steeper_refutes():
    steep = (exact(1.0), exact(1.0), exact(math.exp(0.1)), exact(math.exp(0.9)))
    flat = (exact(1.0), exact(1.0), exact(math.exp(0.1)), exact(math.exp(0.15)))
    assert steeper(bits(steep, flat)).outcome == "refuted"


@pytest.mark.parametrize(
    ("loss", "outcome"),
    [((0.03, 0.01, 0.049), "confirmed"), ((0.2, 0.051, 0.3), "refuted"), ((0.03, 0.01, 0.051), "not identifiable")],
)
@pytest.mark.parametrize("right", [0.9, 0.4])
def test_four_bits_against_five_per_cent_of_the_originals_accuracy(loss, right, outcome):
    finding = four_bits(Reports({"four-bits-answers": answered(loss, right=right)}))
    assert finding.outcome == outcome
    original, four, lost = finding.figures
    assert four.value == pytest.approx(original.value * (1 - lost.value))
    assert (lost.value, lost.low, lost.high) == pytest.approx(loss)


def share_lost(reference, candidate):
    """The loss that the rule takes of two accuracies, in per cent of the reference's."""
    return 100 * four_bits(Reports({"four-bits-answers": accuracies(reference, candidate)})).figures[2].value


@pytest.mark.parametrize("name", MMLU)
def test_the_published_losses_of_accuracy_are_shares_of_the_originals(name):
    assert share_lost(MMLU[name].reference, MMLU[name].few_bits) == pytest.approx(MMLU[name].loss, abs=0.1)


@pytest.mark.parametrize("task", SPREADS)
def test_the_published_spreads_of_decoders_are_what_the_worst_loses_of_the_best(task):
    rows = [scores for (_, of), scores in SCORES.items() if of == task]
    assert [len(row) for row in rows] == [len(DECODERS)] * 9
    spreads = [share_lost(max(row) / 100, min(row) / 100) for row in rows]
    mean, largest = SPREADS[task]
    assert sum(spreads) / len(spreads) == pytest.approx(mean, abs=0.3)
    assert largest is None or max(spreads) == pytest.approx(largest, abs=0.5)


def test_what_is_answered_by_guessing_shows_no_loss():
    with pytest.raises(NoNumberError, match="no better than by guessing"):
        four_bits(Reports({"four-bits-answers": answered((0.03, 0.01, 0.04), at_chance=True)}))


@pytest.mark.parametrize(("sparsegpt", "outcome"), [(5.0, "confirmed"), (1.1, "refuted"), (1.21, "not identifiable")])
def test_four_bits_against_the_better_pruning(sparsegpt, outcome):
    reports = Reports(
        {
            "gptq-bits": swept({4: near(1.2)}),
            "wanda-sparsity": swept({0.7: near(50.0)}),
            "sparsegpt-sparsity": swept({0.7: near(sparsegpt)}),
        }
    )
    assert four_bits_against_pruning(reports).outcome == outcome
