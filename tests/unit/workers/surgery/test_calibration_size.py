"""A wide layer has text enough: GPTQ on a model of random weights whose widest layer has 1,280 inputs."""

import re

import pytest

from app.contracts.text import InlineText
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.pruning import RECIPE
from workers.measuring.calibration_text import CalibrationLoader
from workers.surgery.recipe import apply
from workers.text.documents import of_inline

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
]
WIDEST, WINDOW = 1280, 128


def made(folder, store, words, **fields):
    text = " ".join(WORDS[(index * index + index // 7) % len(WORDS)] for index in range(words))
    inline = {"source": "inline", "documents": [{"id": "d", "text": text}]}
    step = {"type": "quantize.gptq", "bits": 4, "group_size": 32, "calibration": inline, "calibration_window": WINDOW}

    def load(source):
        assert isinstance(source, InlineText)
        return of_inline(source.documents, settings=Settings())

    recipe = RECIPE.validate_python([step | fields])
    with apply(
        inspect(folder), recipe, device="cpu", store=store, calibration=CalibrationLoader(load, folder)
    ) as found:
        (record,) = found.manifest.steps
        return found.manifest, record


@pytest.fixture
def wide(tiny):
    return tiny("llama", intermediate_size=WIDEST)


def test_by_default_there_are_four_tokens_per_input_and_none_is_warned_of(wide, store):
    manifest, record = made(wide, store, 3000)
    assert record.calibration_tokens == 4 * WIDEST > 32 * WINDOW
    assert record.warnings == ()
    assert manifest.recipe[0]["calibration_windows"] == 32, "the recipe is named as it was given"


def test_a_short_text_is_read_whole_and_the_report_has_what_is_missing(wide, store):
    _, record = made(wide, store, 1600)
    assert 32 * WINDOW < record.calibration_tokens < 4 * WIDEST
    (warning,) = record.warnings
    assert warning.code == "short_for_widest_layer"
    assert warning.facts == {"tokens": record.calibration_tokens, "enough": 4 * WIDEST, "each": 4}
    assert re.search(r"`calibration`", warning.text)


def test_a_number_that_was_asked_for_is_kept(wide, store):
    _, record = made(wide, store, 3000, calibration_windows=11)
    assert record.calibration_tokens == 11 * WINDOW
