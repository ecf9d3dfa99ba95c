"""Knees and two texts on hand-made reports."""

import math
import re

import pytest

from app.kinds.sweep.report import Limit, Setting
from examples.paper.__main__ import DOCS
from examples.paper.claim import claims
from examples.paper.finding import NoNumberError
from examples.paper.rulings.curves import TWO_TEXTS, knee, one_text_hides
from examples.paper.rulings.reports import Reports
from tests.support.paper_reports import kneed, swept
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.formfree import near_lossless
from workers.analysis.threshold.published import fit

THERE = (0.6, 0.57, 0.63)


@pytest.mark.parametrize(
    ("s0", "answer", "outcome"),
    [
        (THERE, "transition", "confirmed"),
        ((0.5, 0.45, 0.54), "transition", "refuted"),
        ((0.56, 0.52, 0.6), "transition", "not identifiable"),
        (THERE, "not identifiable", "not identifiable"),
    ],
)
def test_the_knee_of_the_second_method_decides_where_the_first_is_there(s0, answer, outcome):
    finding = knee(Reports({"wanda-sparsity": kneed(THERE), "sparsegpt-sparsity": kneed(s0, answer)}))
    assert finding.outcome == outcome
    knees = [(figure.value, figure.ci) for figure in finding.figures if figure.what.startswith("knee")]
    assert knees == [(0.6, (0.57, 0.63)), (s0[0], s0[1:])]


def test_a_curve_without_a_threshold_has_no_number():
    none = kneed(THERE).model_copy(update={"threshold": None, "no_threshold": "too few points stand in the curve"})
    with pytest.raises(NoNumberError, match="Wanda: too few points"):
        knee(Reports({"wanda-sparsity": none, "sparsegpt-sparsity": kneed(THERE)}))


def test_beside_the_knee_stands_where_the_curve_has_risen_by_the_published_limit():
    risen = Limit(limit=0.218, largest=Setting(value=0.3), at=0.34, ci=(0.32, 0.38))
    first, open_end = (
        kneed(THERE).model_copy(update={"near_lossless": found})
        for found in (risen, risen.model_copy(update={"ci": (0.32, None)}))
    )
    figures = knee(Reports({"wanda-sparsity": first, "sparsegpt-sparsity": open_end})).figures
    assert [(figure.what, figure.value, figure.ci) for figure in figures] == [
        ("knee of Wanda", 0.6, (0.57, 0.63)),
        ("near-lossless up to, Wanda", 0.34, (0.32, 0.38)),
        ("knee of SparseGPT", 0.6, (0.57, 0.63)),
    ]


@pytest.mark.parametrize(
    ("most", "sparsegpt", "wanda"), [(0.5, "0.213", "0.218"), (0.65, "0.252", "0.311"), (0.8, "0.310", "0.418")]
)
def test_the_knees_that_the_claim_explains_are_those_of_the_published_curves(most, sparsegpt, wanda):
    """Refitted from the pictures, at the settings that both methods have."""
    curves = {name: _published(name) for name in ("sparsegpt", "wanda")}
    common = [sparsity for sparsity in curves["wanda"] if sparsity in curves["sparsegpt"] and sparsity <= most]
    for name, told in (("sparsegpt", sparsegpt), ("wanda", wanda)):
        curve = Curve.of(common, [curves[name][sparsity] for sparsity in common])
        assert f"{fit(curve, Bounds()).s0:.3f}" == told
    (claim,) = (one for one in claims() if one.id == "knee")
    assert sparsegpt in claim.limits
    assert wanda in claim.limits


def test_the_rises_that_the_claim_explains_are_those_of_the_published_curves():
    (claim,) = (one for one in claims() if one.id == "knee")
    for name, place, last in (("sparsegpt", "0.339", "3.66"), ("wanda", "0.335", "6.11")):
        of = _published(name)
        found = near_lossless(Curve.of(list(of), list(of.values())), 1.0)
        assert f"{found.at:.3f}" == place
        assert f"{math.log(of[0.8]):.2f}" == last
        assert place in claim.limits
        assert last in claim.limits


def _published(name):
    """Sparsity → perplexity over the original's, as the committed picture tells them."""
    drawn = (DOCS / "paper" / f"knee-{name}-light.svg").read_text(encoding="utf-8")
    found = re.findall(r"<title>sparsity ([\d.]+): ([\d.]+) \[", drawn)
    return {float(sparsity): float(times) for sparsity, times in found}


HARMLESS, HARMFUL, EITHER = (1.1, 1.05, 1.15), (1.4, 1.3, 1.5), (1.25, 1.2, 1.3)


@pytest.mark.parametrize(
    ("known", "other", "outcome"),
    [(HARMLESS, HARMFUL, "confirmed"), (HARMLESS, HARMLESS, "refuted"), (HARMLESS, EITHER, "not identifiable")],
)
def test_a_setting_that_is_harmless_on_one_text_only_hides(known, other, outcome):
    rest = dict.fromkeys(TWO_TEXTS[1:], HARMLESS)
    finding = one_text_hides(
        Reports(
            {
                "wanda-sparsity": swept({TWO_TEXTS[0]: known} | rest),
                "wanda-sparsity-classes": swept({TWO_TEXTS[0]: other} | rest),
            }
        )
    )
    assert finding.outcome == outcome
    assert len(finding.figures) == 2 * len(TWO_TEXTS)
