"""Rows of which something that is asked is blank."""

from types import SimpleNamespace

import pytest

from app.contracts.errors import HemostatError
from tests.support.harness_tasks import prepared
from workers.diagnosis.tasks.harness.blanks import asks_nothing


def test_a_blank_field_that_is_not_asked_empties_no_question() -> None:
    """Its prompt is made of a list; the comment is never shown."""
    rows = [
        {"question": "", "messages": "", "story": "A cat sat.", "id": "1", "source": " "}
        | {"questions": {"input_text": ["Who sat?"], "turn_id": [1]}}
        | {"answers": {"input_text": ["the cat"], "turn_id": [1]}, "additional_answers": {}}
    ] * 3
    assert len(prepared("coqa", rows).items) == 3
    piqa = [{"goal": f"open {n}", "sol1": "turn", "sol2": "shout", "label": n % 2, "comment": ""} for n in range(3)]
    assert len(prepared("piqa", piqa).items) == 3


def test_a_prompt_made_of_a_list_is_not_taken_for_empty_because_a_comment_is_blank() -> None:
    asked = SimpleNamespace(multiple_input=False, doc_to_text=lambda doc: f"Sentence: {doc['tokens']}")
    assert not asks_nothing(asked, {"tokens": ["a", "cat"], "comment": " "})
    assert asks_nothing(SimpleNamespace(multiple_input=False, doc_to_text=lambda doc: f"Q: {doc['q']}"), {"q": " "})


def test_an_empty_choice_in_a_field_of_its_own_is_refused() -> None:
    rows = [
        {"instruction": f"Q{n}?", "option_a": "w", "option_b": "x", "option_c": "y", "option_d": "z", "answer": "A"}
        for n in range(3)
    ]
    with pytest.raises(HemostatError, match="item 4: choice 2 is empty"):
        prepared("m_mmlu_de", [*rows, rows[0] | {"option_b": ""}], shots=0)
    asked = {"question": "Q?", "options": ["a", "", "c"], "answer": "A", "answer_index": 0, "category": "law"}
    with pytest.raises(HemostatError, match="item 1: choice 2 is empty"):
        prepared("mmlu_pro_law", [asked | {"cot_content": "", "question_id": n} for n in range(3)], shots=0)
