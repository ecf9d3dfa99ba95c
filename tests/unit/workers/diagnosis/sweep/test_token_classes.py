"""The curve by token class: each says what its positions alone say."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import Setting
from tests.support.sweep_reports import DOCUMENTS, TOKENS, bending, class_masks, course, positions, values
from workers.diagnosis.sweep.course import Course, Turned
from workers.diagnosis.sweep.slices import TOO_FEW
from workers.diagnosis.sweep.token_classes import token_classes
from workers.distributions.intervals import Clusters
from workers.measuring.points.record import record_of

SHARES = [(s, s, 0.002 * s, 0.001) for s in (0.2, 0.4, 0.6, 0.8)]


@cache
def shares():
    """Made once: do not change it."""
    return course(SHARES)


def of(made, *, floor=0.0, moderate=0.05):
    limits = Thresholds(mild=moderate / 2, moderate=moderate)
    return token_classes(made, floor=floor, thresholds=limits, seed=0, check_cancelled=lambda: None)


def by_name(found):
    return {one.name: one for one in found.classes}


def hurt(settings, *, name, times, since):
    """Points whose KL is so many times as large at the positions of a class from the given one on."""
    where, masks = positions(), class_masks(positions())
    points = []
    for place, (value, s, kl, loss) in enumerate(settings):
        one = values(kl, loss, seed=place)
        one = replace(one, kl=one.kl * np.where(masks[name] & (place >= since), times, 1.0))
        record = record_of(one, where, DOCUMENTS, floor=0.0, thresholds=Thresholds(), seed=0, classes=masks)
        points.append(Turned(place, value, s, record, place + 1))
    return Course(tuple(points), np.arange(DOCUMENTS))


def test_means_are_those_of_the_values_by_token_and_intervals_those_of_their_documents():
    settings = bending(5)
    found = of(course(settings))
    where, masks = positions(), class_masks(positions())
    assert [one.name for one in found.classes] == ["numbers", "code", "names", "rare"], "the order of the catalogue"
    for name, told in (*by_name(found).items(), ("none", found.none)):
        mask = masks[name]
        assert told.tokens == np.count_nonzero(mask)
        assert told.documents == np.unique(where.document[mask]).size
        tokens = [values(kl, loss, seed=place) for place, (_, _, kl, loss) in enumerate(settings)]
        kl_PN = [one.kl[mask] for one in tokens]
        ratio_PN = [(one.logp_reference - one.logp_candidate)[mask] for one in tokens]
        assert [mean.mean for mean in told.kl] == pytest.approx([kl_N.sum() / mask.sum() for kl_N in kl_PN])
        ratios = [np.exp(ratio_N.sum() / mask.sum()) for ratio_N in ratio_PN]
        assert [mean.mean for mean in told.perplexity_ratio] == pytest.approx(ratios)
        if name == "code":
            continue
        for column_PN, means, unit in ((kl_PN, told.kl, np.asarray), (ratio_PN, told.perplexity_ratio, np.log)):
            assert {mean.clusters for mean in means} == {"documents"}
            ends = [unit(mean.ci).tolist() for mean in means]
            theirs = Clusters.of(where.document[mask], where.window[mask]).means(column_PN)
            assert ends == [pytest.approx(one.interval) for one in theirs]
            # Linearized, with Student's t: near the bootstrap, which follows the skew.
            for (low, high), column_N in zip(ends, column_PN, strict=True):
                sums_D = np.array([column_N[where.document[mask] == document].sum() for document in range(DOCUMENTS)])
                counts_D = np.bincount(where.document[mask], minlength=DOCUMENTS)
                left_D = sums_D - column_N.mean() * counts_D
                error = np.sqrt(DOCUMENTS / (DOCUMENTS - 1) * (left_D**2).sum()) / counts_D.sum()
                assert high - low == pytest.approx(2 * stats.t.ppf(0.975, DOCUMENTS - 1) * error, rel=0.4)


def test_a_class_that_is_hurt_earlier_stays_mild_less_far_than_what_it_is_not():
    made = hurt(SHARES, name="names", times=200.0, since=2)
    found = of(made)
    assert (by_name(found)["names"].largest_mild, found.none.largest_mild) == (Setting(value=0.4), Setting(value=0.8))
    assert by_name(of(made, floor=1.0))["names"].largest_mild == Setting(value=0.8), "beyond the noise floor"


def test_a_class_of_few_documents_has_means_only_and_says_so():
    code = by_name(of(shares()))["code"]
    assert (code.note, code.documents, code.largest_mild) == (TOO_FEW, 4, None)
    assert all(mean.mean is not None and mean.ci is None for mean in code.kl + code.perplexity_ratio)


def test_nothing_beyond_a_collapse_is_mild_and_refused_settings_are_passed_over():
    assert by_name(of(course(SHARES, refused=1)))["numbers"].largest_mild == Setting(value=0.8)
    broken = by_name(of(course(SHARES, broken=2)))["numbers"]
    assert broken.largest_mild == Setting(value=0.4)
    assert broken.kl[2].mean is None and broken.kl[3].mean is not None
    assert broken.tokens == DOCUMENTS * TOKENS / 5


def test_classes_that_the_text_lacks_are_named():
    found = of(shares())
    assert "JSON structure" in found.absent and "Numbers" not in found.absent
    assert len(found.absent) + len(found.classes) == 11
    found = of(course([(0.5, 0.5, 0.1, 0.1)], broken=0))
    assert (found.classes, found.none) == ((), None)
