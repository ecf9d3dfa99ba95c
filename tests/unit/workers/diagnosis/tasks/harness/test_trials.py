"""What answers that no model gave show before any pass."""

import pytest

from app.contracts.errors import HemostatError
from tests.support.harness_tasks import Row, prepared


def test_a_grade_over_several_right_answers_is_found_before_any_model_is_asked() -> None:
    def said(text: str) -> Row:
        return {"input_text": [text], "turn_id": [1], "span_start": [0], "span_end": [7], "span_text": ["The cat"]}

    row = {
        "id": "1",
        "source": "s",
        "story": "The cat sat on the mat.",
        "questions": {"input_text": ["Who sat?"], "turn_id": [1]},
        "answers": said("the cat"),
        "additional_answers": {str(n): said(text) for n, text in enumerate(("cat", "a furry cat", "tom"))},
    }
    with pytest.raises(HemostatError, match="em gives other numbers than right and wrong"):
        prepared("coqa", [row] * 3)
