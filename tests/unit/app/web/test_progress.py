"""How far a job is, in words."""

import pytest

from app.web.progress import percent, told


def at(phase, done, total):
    return {"phase": phase, "done": done, "total": total}


@pytest.mark.parametrize(
    ("kind", "progress", "words"),
    [
        ("sweep", at("points", 800, 1300), "measuring the settings: 8 of 13 settings, 61 % of this phase"),
        ("calibrate", at("fit", 1500, 4000), "fitting the calibrators: 37 % of this phase"),
        ("compare", at("a newer one", 34, 0), "a newer one: 34 steps so far"),
        ("compare", at("statistics", 0, 1), "computing statistics"),
        ("compare", at("a newer one", 1, 3), "a newer one: 1 of 3 steps, 33 % of this phase"),
    ],
)
def test_a_phase_is_told_with_what_it_counts_and_its_share(kind, progress, words):
    assert told(kind, progress) == words


def test_a_phase_is_all_done_only_where_it_is():
    assert percent(at("candidate", 999, 1000)) == "99 %"
    assert percent(at("candidate", 1000, 1000)) == "100 %"
    assert percent(at("a newer one", 5, 0)) == ""
