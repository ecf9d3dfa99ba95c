"""Rows of which something that is asked is blank."""

from types import SimpleNamespace

import pytest

from app.contracts.errors import HemostatError
from tests.support.harness_tasks import prepared
from workers.answering.harness.blanks import asks_nothing


def test_a_blank_field_that_is_not_asked_empties_no_question() -> None:
    piqa = [{"goal": f"open {n}", "sol1": "turn", "sol2": "shout", "label": n % 2, "comment": ""} for n in range(3)]
    assert len(prepared("piqa", piqa).items) == 3


def test_a_prompt_made_of_a_list_is_not_taken_for_empty_because_a_comment_is_blank() -> None:
    asked = SimpleNamespace(multiple_input=False, doc_to_text=lambda doc: f"Sentence: {doc['tokens']}")
    assert not asks_nothing(asked, {"tokens": ["a", "cat"], "comment": " "})
    assert asks_nothing(SimpleNamespace(multiple_input=False, doc_to_text=lambda doc: f"Q: {doc['q']}"), {"q": " "})


def test_an_empty_choice_in_a_field_of_its_own_is_refused() -> None:
    rows = [{"question": f"Q{n}?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 0} for n in range(3)]
    with pytest.raises(HemostatError, match="item 4: choice 2 is empty"):
        prepared("medmcqa", [*rows, rows[0] | {"opb": ""}])
