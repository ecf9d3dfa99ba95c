"""What a list says of a job, from the JSON that a service answers."""

import pytest

from app.web.listing import candidate, outcome, recipe, text


def job(**fields):
    return {"kind": "compare", "severity": None, "candidate": {"model": "m", "recipe": []}} | fields


@pytest.mark.parametrize(
    ("kind", "severity", "said"),
    [
        ("compare", None, "–"),
        ("compare", "none", "no damage that matters"),
        ("surface", "none", "no damage that matters at the chosen setting"),
        ("sweep", "collapse", "collapse at the strongest setting"),
        ("mitigate", "moderate", "moderate left"),
    ],
)
def test_a_class_is_told_in_words_with_what_it_is_of(kind, severity, said):
    assert outcome(job(kind=kind, severity=severity)) == said


@pytest.mark.parametrize(
    ("kind", "answer", "classes", "said"),
    [
        ("tasks", "Undecided", ["severe"], "Undecided; severe over the text"),
        ("calibrate", "Not served", ["mild", "moderate"], "Not served; mild or moderate? once calibrated"),
        ("attribute", "Worst: \u202elayer", ["mild"], "Worst: ⟨U+202E⟩layer; mild"),
        ("compare", None, ["mild"], "mild"),
    ],
)
def test_what_the_kind_asks_is_answered_before_the_class(kind, answer, classes, said):
    assert outcome(job(kind=kind, answer=answer, severity=classes[-1], classes=classes)) == said


@pytest.mark.parametrize(
    ("severity", "classes", "said"),
    [
        ("collapse", ["collapse"], "collapse at the strongest setting"),
        ("collapse", ["severe", "collapse"], "severe or collapse? at the strongest setting"),
        ("mild", ["none", "mild", "moderate", "severe", "collapse"], "mild? at the strongest setting"),
    ],
)
def test_a_class_that_is_not_decided_is_told_with_its_doubt(severity, classes, said):
    assert outcome(job(kind="sweep", severity=severity, classes=classes)) == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "shipped:60", "window": 512}, "shipped:60, window 512"),
        ({"text": "inline:3", "window": None}, "3 documents sent along"),
        ({"text": "calibration", "test_text": "shipped", "window": 512}, "calibration → shipped, window 512"),
        ({"text": "shipped", "test_text": "file:\u202ea"}, "shipped → file:⟨U+202E⟩a"),
    ],
)
def test_a_text_is_named_with_its_window(fields, said):
    assert text(job(**fields)) == said


def test_a_candidate_is_told_with_what_was_done_to_it():
    changed = job(candidate={"model": "m", "recipe": [{"type": "prune.wanda", "sparsity": 0.5}]})
    assert candidate(changed) == f"m · {recipe(changed)}" == "m · Wanda pruning 50.0 % per row"
    assert (candidate(job()), recipe(job())) == ("m", "–")
