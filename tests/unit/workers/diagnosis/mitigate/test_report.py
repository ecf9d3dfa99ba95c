"""What a mitigate report answers, and how much of the damage is removed."""

from types import SimpleNamespace

import numpy as np
import pytest

from app.contracts.notices import Warned
from app.contracts.report import Mean
from app.kinds.mitigate.notices import MitigateNotice
from app.recipes.notices import StepNotice, made
from workers.diagnosis.mitigate.report import Tested as OnTest
from workers.diagnosis.mitigate.report import _warnings, answer_of, sentence
from workers.distributions.token_values import Positions
from workers.measuring.subject import recipe_of

RTN = {"type": "quantize.rtn", "bits": 3}


def summary(kl):
    return SimpleNamespace(divergence=SimpleNamespace(kl=SimpleNamespace(mean=kl)))


OF_SETS = Warned.REPEATED_IN_SET(documents=1, set="test")
LITTLE_TEXT = StepNotice.SINGULAR_MOMENT(tokens=96, inputs=128)
NO_BIASES = StepNotice.NO_BIASES()


def found(*, tried=True, recommended=True, size=120, documents=8):
    point = SimpleNamespace(bytes=size) if recommended else None
    where = SimpleNamespace(document=np.repeat(np.arange(documents), 4))
    tested = SimpleNamespace(
        recommended=point, raw=SimpleNamespace(mean=0.4, where=where), part=SimpleNamespace(where=where)
    )
    runner = SimpleNamespace(subject=SimpleNamespace(bytes=100), done=[object()] * tried)
    return SimpleNamespace(tested=tested, runner=runner, sets=SimpleNamespace(warnings=(OF_SETS,)))


@pytest.mark.parametrize(
    ("size", "ci", "words"),
    [
        (120, (0.7, 0.812), "takes 75 % [70, 81.2] of the KL away on test documents, from 0.4 to 0.1 nats"),
        (120, None, "takes 75 % of the KL away"),
        (120, None, "for 20 % more bytes; the damage is mild or moderate, and was severe."),
        (90, None, "for 10 % fewer bytes"),
        (100, None, "nats per token, for as many bytes; the damage"),
    ],
)
def test_what_helps_is_told_with_its_share_and_its_bytes(size, ci, words):
    decisions = SimpleNamespace(classes=("severe",)), SimpleNamespace(classes=("mild", "moderate"))
    assert words in sentence(
        "treated", found(size=size), decisions, (summary(0.4), summary(0.1)), Mean(mean=0.75, ci=ci)
    )


def test_what_is_removed_is_a_share_of_the_candidates_with_an_interval_of_its_own():
    """Each document loses its own share: the interval spans them, and is no narrower than a paired one of the ratio."""
    document = np.repeat(np.arange(12), 5)
    where = Positions(document, document, document, document, document)
    raw = np.random.default_rng(0).gamma(2.0, 0.2, 60)
    shares = np.linspace(0.6, 0.9, 12)[where.document]
    of = {"": raw, "same": 0.25 * raw, "a": raw * (1 - shares)}
    measured = {key: SimpleNamespace(kl=kl) for key, kl in of.items()}
    part = SimpleNamespace(where=where)
    floor = None
    tested = OnTest(part, floor, (), None, measured, "", 0.0)
    removed = tested.removed("a", 0)
    assert removed.mean == pytest.approx(float((raw * shares).sum() / raw.sum()))
    assert 0.6 < removed.ci[0] < removed.mean < removed.ci[1] < 0.9
    same = tested.removed("same", 0)
    assert same.mean == pytest.approx(0.75)
    assert same.ci == pytest.approx((0.75, 0.75))


@pytest.mark.parametrize(
    ("own", "kl", "classes", "answer"),
    [
        (found(recommended=False), 0.0, ["severe"], "no_damage"),
        (found(recommended=False), 0.004, ["none"], "no_damage_that_matters"),
        (found(recommended=False), 0.004, ["none", "mild"], "nothing_helps"),
        (found(), 0.4, ["severe"], "does_not_hold"),
        (found(recommended=False, tried=False), 0.4, ["severe"], "nothing_tried"),
        (found(recommended=False), 0.4, ["severe"], "nothing_helps"),
        (found(recommended=False), None, ["collapse"], "nothing_helps"),
    ],
)
def test_each_kind_of_nothing_has_its_answer(own, kl, classes, answer):
    of = SimpleNamespace(classes=tuple(classes))
    assert answer_of(own, of, summary(kl), helped=False) == answer
    assert answer_of(own, of, summary(kl), helped=True) == "treated"
    assert sentence(answer, own, (of,) * 2, (summary(kl),) * 2, None).startswith("Nothing")


def done(source):
    steps = [RTN, {"type": "norm.tweak", "calibration": {"source": source} | DOCUMENTS.get(source, {})}]
    return SimpleNamespace(
        recipe=recipe_of(steps), measured=SimpleNamespace(record=SimpleNamespace(warnings=(LITTLE_TEXT,)))
    )


DOCUMENTS = {"inline": {"documents": [{"id": "a", "text": "some text"}]}}


def test_warnings_speak_of_a_recommended_recipe_only_where_there_is_one():
    assert _warnings(found(), None) == [OF_SETS]
    shipped = done("shipped")
    shipped.measured.record.warnings = (LITTLE_TEXT, NO_BIASES, LITTLE_TEXT, NO_BIASES)
    told = [made("the recommended recipe", one) for one in (LITTLE_TEXT, NO_BIASES)]
    assert _warnings(found(), shipped) == [OF_SETS, *told]
    assert _warnings(found(), done("inline"))[-1].code == "looks_at_sent_documents"
    assert _warnings(found(), done("self"))[-1].code == "looks_at_sampled_text"
    assert _warnings(found(documents=1), None)[-1] == MitigateNotice.FEW_TEST_DOCUMENTS(documents=1)
