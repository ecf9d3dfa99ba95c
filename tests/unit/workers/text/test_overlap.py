import numpy as np

from app.contracts.notices import Warned
from app.contracts.text import Message
from workers.text.documents import TextDocument
from workers.text.overlap import document_overlap, repeated, unlike


def text(name: str, content: str) -> TextDocument:
    return TextDocument(name, "text", text=content)


def test_a_document_is_the_same_whatever_its_case_spacing_and_unicode_form() -> None:
    first = [text("a", "Caf\u00e9 au lait,\nplease."), text("b", "something else")]
    second = [text("x", "other"), text("y", "  CAFE\u0301 au  lait, please. ")]
    assert document_overlap(first, second) == [("a", "y")]


def test_a_conversation_is_compared_by_what_is_said() -> None:
    said = (Message(role="user", content="one"), Message(role="assistant", content="two"))
    chat = TextDocument("c", "dialogue", messages=said)
    assert document_overlap([chat], [text("t", "one two")]) == [("c", "t")]
    assert document_overlap([chat], [text("t", "one three")]) == []


def test_exact_tokens_are_compared_as_tokens() -> None:
    def exact(name: str, *tokens: int) -> TextDocument:
        return TextDocument(name, "text", tokens=np.asarray(tokens, dtype=np.int32))

    found = document_overlap([exact("a", 1, 2), exact("b", 3)], [exact("x", 3), exact("y", 2, 1), text("z", "")])
    assert found == [("b", "x")]


def test_a_document_that_stands_in_a_text_again_is_named() -> None:
    documents = [
        text("a", "one two"),
        text("b", "three"),
        text("c", "One  two"),
        text("d", "four"),
        text("e", "one two"),
    ]
    assert repeated(documents) == ("c", "e")


def test_what_stands_in_an_earlier_text_or_earlier_in_its_own_is_left_out_and_told() -> None:
    earlier = [text("a", "one"), text("b", "two")]
    later = [text("x", "three"), text("y", "ONE"), text("z", "three"), text("w", "four"), text("v", " two ")]
    kept, told = unlike(earlier, later, name="test")
    assert [document.id for document in kept] == ["x", "w"]
    assert told == [
        Warned.USED_BEFORE(documents=2, set="test"),
        Warned.REPEATED_IN_SET(documents=1, set="test"),
    ]
    assert unlike(earlier, [text("x", "three")], name="test") == ([text("x", "three")], [])
