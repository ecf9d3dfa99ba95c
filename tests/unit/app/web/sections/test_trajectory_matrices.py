"""The matrices of decoder by candidate: what stands in a cell, its interval, how strong it is drawn."""

import copy
from xml.etree import ElementTree

import pytest

from app.kinds.trajectory.report import TrajectoryReport
from app.web.sections.trajectory_matrices import matrices
from tests.support.trajectory_reports import trajectory_variants

VARIANTS = trajectory_variants()


def drawn(data, caption):
    """Title, text and step of each cell, row by row."""
    (matrix,) = [one for one in matrices(TrajectoryReport.model_validate(data)) if one.caption == caption]
    chart = ElementTree.fromstring(str(matrix.chart))
    texts = [one.text for one in chart.iter("text") if one.get("class").startswith("t mid ")]
    rects = list(chart.iter("rect"))
    return [
        (rect.find("title").text, text, int(rect.get("class").removeprefix("heat h")))
        for rect, text in zip(rects, texts, strict=True)
    ]


def test_divergence_and_what_the_texts_are_like_have_a_matrix_each():
    found = matrices(TrajectoryReport.model_validate(VARIANTS["four"]))
    assert [one.caption for one in found] == [
        "KL on its own text",
        "First different token",
        "KL factor",
        "Token edit distance",
        "Repeated 4-grams",
    ]
    for one in found:
        assert len(drawn(VARIANTS["four"], one.caption)) == 13 * 4


def test_the_edit_distance_is_that_of_the_whole_text_with_its_interval():
    data = copy.deepcopy(VARIANTS["one"])
    data["cells"][0]["edit_distance"] = [
        {"tokens": 16, "distance": {"mean": 0.1, "ci": [0.05, 0.15]}},
        {"tokens": 128, "distance": {"mean": 0.6, "ci": [0.5, 0.7]}},
    ]
    data["cells"][1]["edit_distance"] = []
    data["cells"][2]["edit_distance"] = [{"tokens": 128, "distance": {"mean": 1.0, "ci": None}}]
    assert drawn(data, "Token edit distance")[:3] == [
        ("edit distance 60 [50, 70] % of the length", "60", 4),
        ("edit distance – % of the length", "–", 0),
        ("edit distance 100 % of the length", "100", 7),
    ]


@pytest.mark.parametrize(
    ("change", "cell"),
    [
        ({"mean": 0.12, "ci": [0.02, 0.22]}, ("repeated 4-grams +12 [2, 22] points", "+12", 4)),
        ({"mean": -0.12, "ci": [-0.22, -0.02]}, ("repeated 4-grams −12 [−22, −2] points", "−12", 4)),
        ({"mean": 0.0, "ci": None}, ("repeated 4-grams 0 points", "0", 0)),
        ({"mean": 0.6, "ci": None}, ("repeated 4-grams +60.0 points", "+60", 7)),
        ({"mean": None, "ci": None}, ("repeated 4-grams – points", "–", 0)),
    ],
)
def test_the_change_of_repetition_has_its_sign_and_is_strong_either_way(change, cell):
    data = copy.deepcopy(VARIANTS["one"])
    data["cells"][0]["change"]["repetition"]["4"] = change
    assert drawn(data, "Repeated 4-grams")[0] == cell


def test_a_report_without_repetition_of_four_tokens_still_shows():
    data = copy.deepcopy(VARIANTS["one"])
    for one in data["cells"]:
        one["change"]["repetition"] = {}
    assert {text for _, text, _ in drawn(data, "Repeated 4-grams")} == {"–"}


def test_texts_that_stay_the_same_are_drawn_plain():
    for caption in ("Token edit distance", "Repeated 4-grams"):
        assert {step for _, _, step in drawn(VARIANTS["same"], caption)} == {0}
