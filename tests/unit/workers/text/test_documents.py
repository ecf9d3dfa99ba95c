from collections.abc import Callable

import pytest

from app.contracts.errors import ErrorCode
from app.contracts.text import MAX_DOCUMENTS, Document, Message
from app.settings import Settings
from tests.support.refusals import refused
from workers.text.documents import Intake, TextDocument, of_inline


def document(name: str, text: str) -> Document:
    return Document(id=name, text=text)


def test_inline_documents_come_in_order_with_their_place_in_the_request(settings: Callable[..., Settings]) -> None:
    chat = Document(id="b", domain="dialogue", messages=(Message(role="assistant", content="yes"),))
    first, second = of_inline([document("a", "one two"), chat], settings=settings())
    assert (first.id, first.text, first.pointer) == ("a", "one two", "/text/documents/0")
    assert (second.domain, second.messages, second.pointer) == ("dialogue", chat.messages, "/text/documents/1")


@pytest.mark.parametrize("bad", ["a\0b", "half \ud83d of a pair"])
@pytest.mark.parametrize("chat", [False, True])
def test_what_is_not_text_is_refused_by_id_and_place(bad: str, chat: bool, settings: Callable[..., Settings]) -> None:
    # pydantic does not let a surrogate through; a document may also be made by our own code
    made = Document.model_construct(
        id="d7",
        domain="text",
        text=None if chat else bad,
        messages=(Message.model_construct(role="assistant", content=bad),) if chat else None,
    )
    with refused(ErrorCode.DOCUMENT_NOT_TEXT) as caught:
        of_inline([document("ok", "fine"), made], settings=settings())
    assert "'d7'" in caught.value.detail
    assert caught.value.pointer == "/text/documents/1"
    assert "pair" not in caught.value.detail


def test_a_repeated_id_is_refused(settings: Callable[..., Settings]) -> None:
    with refused(ErrorCode.INVALID_REQUEST, "/text/documents/1", match="'same'"):
        of_inline([document("same", "one"), document("same", "two")], settings=settings())


def test_the_limit_on_bytes_counts_all_documents_and_is_inclusive(settings: Callable[..., Settings]) -> None:
    limited = settings(max_body_bytes=1024)
    intake = Intake(limited)
    intake.add(TextDocument("a", "text", text="é" * 256))
    assert intake.room_bytes() == 512
    intake.add(TextDocument("b", "text", text="x" * 512))
    with refused(ErrorCode.BODY_TOO_LARGE):
        intake.add(TextDocument("c", "text", text="x"))


def test_the_limit_on_documents(settings: Callable[..., Settings]) -> None:
    intake = Intake(settings())
    for number in range(MAX_DOCUMENTS):
        intake.add(TextDocument(str(number), "text", text="x"))
    with refused(ErrorCode.TOO_MANY_DOCUMENTS):
        intake.add(TextDocument("one more", "text", text="x"))


def test_a_text_of_no_document_is_refused(settings: Callable[..., Settings]) -> None:
    with refused(ErrorCode.TEXT_NOT_FOUND):
        Intake(settings()).documents()
