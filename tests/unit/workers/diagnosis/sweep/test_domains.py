"""The curve by domain: each says what its documents alone say."""

import numpy as np
import pytest

from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import Setting
from tests.support.sweep_reports import DOCUMENTS, TOKENS, bending, course, positions, values
from workers.diagnosis.sweep.domains import domains
from workers.diagnosis.sweep.slices import TOO_FEW
from workers.distributions.intervals import Clusters

NAMES = [("prose", "code")[number % 2] for number in range(DOCUMENTS)]


def of(made, names=NAMES, *, floor=0.0, moderate=0.05):
    limits = Thresholds(mild=moderate / 2, moderate=moderate)
    return domains(made, names, floor=floor, thresholds=limits, seed=0, check_cancelled=lambda: None)


def test_means_and_intervals_are_those_of_the_tokens_of_the_domain():
    settings = bending(5)
    found = of(course(settings))
    where = positions()
    for name in ("prose", "code"):
        mask = np.isin(where.document, [index for index, domain in enumerate(NAMES) if domain == name])
        clusters = Clusters.of(where.document[mask], where.window[mask])
        tokens = [values(kl, loss, seed=place) for place, (_, _, kl, loss) in enumerate(settings)]
        kl = clusters.means([one.kl[mask] for one in tokens])
        loss = clusters.means([(one.logp_reference - one.logp_candidate)[mask] for one in tokens])
        assert [mean.mean for mean in found[name].kl] == pytest.approx([one.mean for one in kl])
        assert [mean.ci for mean in found[name].kl] == [pytest.approx(one.interval) for one in kl]
        told = [mean.mean for mean in found[name].perplexity_ratio]
        assert told == pytest.approx([float(np.exp(one.mean)) for one in loss])
        assert found[name].tokens == mask.sum() == found[name].documents * TOKENS


def hurt(point, first):
    """Twenty times the KL in every second document from the first one on."""
    kl = np.array(point.record.sums.kl)
    kl[first::2] *= 20.0
    object.__setattr__(point.record, "sums", point.record.sums.model_copy(update={"kl": tuple(kl.tolist())}))


def test_a_domain_that_is_hurt_earlier_stays_mild_less_far():
    settings = [(s, s, 0.02 * s, 0.01) for s in (0.2, 0.4, 0.6, 0.8)]
    made = course(settings)
    for point in made.points[2:]:
        hurt(point, 1)
    found = of(made)
    assert (found["prose"].largest_mild, found["code"].largest_mild) == (Setting(value=0.8), Setting(value=0.4))
    assert of(made, floor=1.0)["code"].largest_mild == Setting(value=0.8), "beyond the noise floor"


def test_nothing_beyond_a_collapse_is_mild_and_refused_settings_are_passed_over():
    settings = [(s, s, 0.001, 0.01) for s in (0.2, 0.4, 0.6, 0.8)]
    assert of(course(settings, refused=1))["code"].largest_mild == Setting(value=0.8)
    broken = of(course(settings, broken=2))["code"]
    assert broken.largest_mild == Setting(value=0.4)
    assert broken.kl[2].mean is None and broken.kl[3].mean is not None


def test_settings_of_the_same_share_are_judged_by_what_the_domain_loses():
    """Harmful to prose alone, to code alone: what stays mild of either is the other one."""
    made = course([("2:4", 0.5, 0.02, 0.01), ("4:8", 0.5, 0.02, 0.01), ("1:4", 0.75, 0.9, 0.8)])
    for point in made.points[:2]:
        hurt(point, 0 if point.value == "2:4" else 1)
    found = of(made)
    assert (found["prose"].largest_mild, found["code"].largest_mild) == (Setting(value="4:8"), Setting(value="2:4"))


def test_a_last_setting_that_is_null_is_told_from_none():
    for kl, mild in ((0.002, True), (0.9, False)):
        found = of(course([(None, None, kl, 0.01), (32, None, 0.9, 0.9)]))["code"]
        assert found.largest_mild == (Setting(value=None) if mild else None)
    found = of(course([(32, None, 0.002, 0.01), (None, None, 0.9, 0.9)]))["code"]
    assert found.largest_mild == Setting(value=32)
    few = of(course([(None, None, 0.002, 0.01)]), ["code"] * 4 + ["prose"] * (DOCUMENTS - 4))["code"]
    assert (few.largest_mild, few.note) == (None, TOO_FEW)


def test_a_domain_of_few_documents_has_means_only():
    names = ["code" if number < 4 else "prose" for number in range(DOCUMENTS)]
    found = of(course(bending(3)), names)
    assert (found["code"].note, found["code"].largest_mild, found["prose"].note) == (TOO_FEW, None, "")
    assert all(mean.mean is not None and mean.ci is None for mean in found["code"].kl + found["code"].perplexity_ratio)
    assert found["prose"].largest_mild is not None


def test_without_a_whole_point_there_is_no_domain():
    assert of(course([(0.5, 0.5, 0.1, 0.1)], broken=0)) == {}
