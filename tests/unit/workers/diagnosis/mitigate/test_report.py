"""What a mitigate report says in words."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.contracts.report import Mean
from workers.diagnosis.mitigate.report import Tested as OnTest
from workers.diagnosis.mitigate.report import _warnings, answer_of, sentence
from workers.measuring.subject import recipe_of

RTN = {"type": "quantize.rtn", "bits": 3}


def summary(kl: float | None) -> Any:
    return SimpleNamespace(divergence=SimpleNamespace(kl=SimpleNamespace(mean=kl)))


def found(*, tried: bool = True, recommended: bool = True, size: int = 120, documents: int = 8) -> Any:
    point = SimpleNamespace(bytes=size) if recommended else None
    where = SimpleNamespace(document=np.repeat(np.arange(documents), 4))
    tested = SimpleNamespace(
        recommended=point, raw=SimpleNamespace(mean=0.4, where=where), part=SimpleNamespace(where=where)
    )
    ward = SimpleNamespace(subject=SimpleNamespace(bytes=100), done=[object()] * tried)
    return SimpleNamespace(tested=tested, ward=ward, sets=SimpleNamespace(warnings=("of the sets",)))


def decided(*classes: str) -> Any:
    return SimpleNamespace(classes=classes)


def told(own: Any, before: float | None, after: float | None, removed: Mean | None = None) -> str:
    answer = answer_of(own, decided("severe"), summary(before), helped=removed is not None)
    decisions = (decided("severe"), decided("mild", "moderate"))
    return sentence(answer, own, decisions, (summary(before), summary(after)), removed)


def test_what_helps_is_told_with_its_share_and_its_bytes() -> None:
    share = Mean(mean=0.75, ci=(0.7, 0.812))
    assert told(found(), 0.4, 0.1, share) == (
        "Treated: the recommended recipe takes 75 % [70, 81.2] of the KL away on test documents, from 0.4 to 0.1 nats "
        "per token, for 20 % more bytes; the damage is mild or moderate, and was severe."
    )
    assert "takes 75 % of the KL away" in told(found(), 0.4, 0.1, Mean(mean=0.75, ci=None)), "too few documents"
    assert "for 10 % fewer bytes" in told(found(size=90), 0.4, 0.1, share)
    assert "nats per token, for as many bytes; the damage" in told(found(size=100), 0.4, 0.1, share)


def test_what_is_removed_is_a_share_of_the_candidates_with_an_interval_of_its_own() -> None:
    """Each document loses its own share: the interval spans them, and is no narrower than a paired one of the ratio."""
    where = SimpleNamespace(document=np.repeat(np.arange(12), 5), window=np.repeat(np.arange(12), 5))
    raw = np.random.default_rng(0).gamma(2.0, 0.2, 60)
    shares = np.linspace(0.6, 0.9, 12)[where.document]
    of = {"": raw, "same": 0.25 * raw, "a": raw * (1 - shares)}
    measured: Any = {key: SimpleNamespace(kl=kl) for key, kl in of.items()}
    part: Any = SimpleNamespace(where=where)
    floor: Any = None
    tested = OnTest(part, floor, (), None, measured, "", 0.0)
    removed = tested.removed("a", 0)
    assert removed is not None
    assert removed.mean == pytest.approx(float((raw * shares).sum() / raw.sum()))
    assert removed.ci is not None
    assert 0.6 < removed.ci[0] < removed.mean < removed.ci[1] < 0.9
    same = tested.removed("same", 0)
    assert same is not None
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
def test_each_kind_of_nothing_has_its_answer_and_its_sentence(
    own: Any, kl: float, classes: list[str], answer: str
) -> None:
    assert answer_of(own, decided(*classes), summary(kl), helped=False) == answer
    assert answer_of(own, decided(*classes), summary(kl), helped=True) == "treated"
    said = sentence(cast("Any", answer), own, (decided(*classes),) * 2, (summary(kl),) * 2, None)
    assert said.startswith("Nothing")
    assert ("0.4" in said) is (kl == 0.4)


def done(source: str) -> Any:
    steps = [RTN, {"type": "norm.tweak", "calibration": {"source": source} | DOCUMENTS.get(source, {})}]
    return SimpleNamespace(
        recipe=recipe_of(steps), measured=SimpleNamespace(record=SimpleNamespace(warnings=("little text",)))
    )


DOCUMENTS: dict[str, Any] = {"inline": {"documents": [{"id": "a", "text": "some text"}]}}


def test_warnings_speak_of_a_recommended_recipe_only_where_there_is_one() -> None:
    assert _warnings(found(), None) == ["of the sets"]
    assert _warnings(found(), done("shipped")) == ["of the sets", "Of making the recommended recipe: little text"]
    assert "recipe.json holds them" in _warnings(found(), done("inline"))[-1]
    assert "which a deployment cannot do" in _warnings(found(), done("self"))[-1]


def test_what_several_steps_of_a_recipe_warn_of_is_told_once() -> None:
    of = done("shipped")
    of.measured.record.warnings = ("little text", "no biases", "little text", "no biases")
    told = ["Of making the recommended recipe: little text", "Of making the recommended recipe: no biases"]
    assert _warnings(found(), of) == ["of the sets", *told]


def test_few_test_documents_are_warned_of() -> None:
    assert _warnings(found(documents=1), None)[-1].startswith("Only 1 test document: ")
