"""A compare job whose recipe looks at documents that are scored, with a real engine on a tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.integration.workers.diagnosis.test_compare_classes import request, words
from tests.support.attempts import Context
from workers.diagnosis.compare.job import compare
from workers.engine.room import EngineRoom

DOCUMENTS = [{"id": f"d{number}", "text": words(number, 40)} for number in range(6)]
OTHERS = [{"id": f"o{number}", "text": words(100 + number, 40)} for number in range(6)]


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    return home_of({"tiny": tiny("llama")})


def asked(looked_at: list[dict[str, Any]]) -> Any:
    step = {
        "type": "prune.wanda",
        "sparsity": 0.5,
        "calibration": {"source": "inline", "documents": looked_at},
        "calibration_windows": 4,
        "calibration_window": 32,
    }
    candidate = {"model": "tiny", "recipe": [step]}
    return request(DOCUMENTS, reference={"model": "tiny"}, candidate=candidate, allow_overlap=True)


def test_an_overlap_that_is_allowed_is_told(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    both = [*OTHERS, DOCUMENTS[2] | {"id": "copy"}]
    told = compare(asked(both), Context(settings, tmp_path / "told"), room).warnings
    assert [one for one in told if "1 scored document was also looked at by the recipe's steps" in one]
    told = compare(asked(OTHERS), Context(settings, tmp_path / "apart"), room).warnings
    assert not [one for one in told if "also looked at" in one]
