"""What a mitigate report says in words."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.contracts.report import Mean
from workers.diagnosis.mitigate.report import _warnings, sentence
from workers.diagnosis.mitigate.subject import recipe_of

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


def told(own: Any, before: float | None, after: float | None, saved: float | None = None) -> str:
    mean = None if saved is None else Mean(mean=saved, ci=(saved / 2, saved * 2))
    return sentence(own, decided("severe"), decided("mild", "moderate"), summary(before), summary(after), mean)


def test_what_helps_is_told_with_its_share_and_its_bytes() -> None:
    assert told(found(), 0.4, 0.1, 0.3) == (
        "Treated: the recommended recipe takes 75 % of the KL away on test documents, from 0.4 to 0.1 nats a token, "
        "for 20 % more bytes; the damage is mild or moderate, and was severe."
    )
    assert "for 10 % fewer bytes" in told(found(size=90), 0.4, 0.1, 0.3)
    assert "nats a token, for as many bytes; the damage" in told(found(size=100), 0.4, 0.1, 0.3)


@pytest.mark.parametrize(
    ("own", "kl", "words"),
    [
        (found(recommended=False), 0.0, "Nothing to treat"),
        (found(), 0.4, "Nothing that helps for sure: what was chosen does not hold on the test documents"),
        (found(recommended=False, tried=False), 0.4, "Nothing could be tried: no allowed treatment fits"),
        (found(recommended=False), 0.4, "Nothing helps: none of the recipes that were measured in full"),
        (found(recommended=False), None, "The candidate loses no finite number of nats a token"),
    ],
)
def test_where_nothing_helps_it_says_which_kind_of_nothing(own: Any, kl: float | None, words: str) -> None:
    assert words in told(own, kl, kl)


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


def test_few_test_documents_are_warned_of() -> None:
    assert _warnings(found(documents=1), None)[-1].startswith("Only 1 test document: ")
