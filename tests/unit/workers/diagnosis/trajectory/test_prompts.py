"""Which documents give prompts, and of what."""

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Message, Tool
from tests.support.tiny import make_tokenizer
from workers.diagnosis.trajectory.prompts import Prompt, check_context, make_prompts
from workers.text.chat import prompt_tokens
from workers.text.documents import TextDocument

TEXT = "the lazy dog jumps over the quick brown fox and it loses what it knew"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def made(tokenizer, *documents, count=8, length=5, chat=False):
    return make_prompts(documents, tokenizer, count=count, length=length, chat=chat)


def test_a_prompt_is_the_first_tokens_of_its_document(tokenizer):
    (prompt,) = made(tokenizer, TextDocument("d", "prose", text=TEXT))
    assert list(prompt.tokens) == tokenizer(TEXT, add_special_tokens=False)["input_ids"][:5]
    assert (prompt.document, prompt.domain, prompt.conversation) == ("d", "prose", False)


def test_a_bos_stands_before_it_where_the_tokenizer_puts_one():
    tokenizer = make_tokenizer(bos=True)
    (prompt,) = made(tokenizer, TextDocument("d", "prose", text=TEXT))
    assert prompt.tokens[0] == 0
    assert len(prompt.tokens) == 6


def test_a_short_document_gives_what_it_has(tokenizer):
    (prompt,) = made(tokenizer, TextDocument("d", "prose", text="the"), length=50)
    assert list(prompt.tokens) == tokenizer("the", add_special_tokens=False)["input_ids"]


def test_sampled_documents_give_their_tokens(tokenizer):
    (prompt,) = made(tokenizer, TextDocument("d", "self", tokens=np.arange(9, dtype=np.int32)))
    assert prompt.tokens == (0, 1, 2, 3, 4)


def test_chat_puts_the_text_into_the_template_and_asks_for_an_answer(tokenizer):
    (prompt,) = made(tokenizer, TextDocument("d", "prose", text=TEXT), chat=True)
    written = tokenizer.decode(prompt.tokens)
    assert written.startswith("<s>user\n")
    assert written.endswith("<s>assistant\n")
    assert prompt.conversation


def said(*turns):
    return tuple(Message(role=role, content=content) for role, content in turns)


def test_a_conversation_is_taken_up_to_its_first_answer(tokenizer):
    messages = said(("user", "the dog"), ("assistant", "the fox"), ("user", "what"))
    (prompt,) = made(tokenizer, TextDocument("d", "chat", messages=messages))
    assert [prompt] == made(tokenizer, TextDocument("d", "chat", messages=messages[:1]))
    written = tokenizer.decode(prompt.tokens)
    assert "the dog" in written
    assert "fox" not in written
    assert written.endswith("<s>assistant\n")


def test_a_conversation_brings_its_tools(tokenizer):
    messages, tool = said(("user", "the dog"), ("assistant", "the fox")), Tool(name="count_dogs")
    (without,) = made(tokenizer, TextDocument("d", "chat", messages=messages))
    (prompt,) = made(tokenizer, TextDocument("d", "chat", messages=messages, tools=(tool,)))
    assert list(prompt.tokens) == prompt_tokens(tokenizer, messages[:1], tools=[tool]).tolist()
    assert "count_dogs" in tokenizer.decode(prompt.tokens)
    assert "count_dogs" not in tokenizer.decode(without.tokens)


def test_an_empty_prompt_is_refused_at_its_place(tokenizer):
    """A document of a file has no place in the request."""
    for fields, chat, place in (
        ({"text": ""}, False, ""),
        ({"text": "  \n  "}, True, "/text"),
        ({"messages": said(("assistant", "yes"))}, False, "/messages/0/role"),
        ({"messages": said(("user", ""), ("assistant", "yes"))}, False, "/messages/0/content"),
        ({"messages": said(("system", " "), ("user", "\n"), ("assistant", "yes"))}, False, "/messages/1/content"),
    ):
        for document, pointer in (("/text/documents/0", f"/text/documents/0{place}"), ("", "")):
            with pytest.raises(HemostatError) as caught:
                made(tokenizer, TextDocument("d", "prose", pointer=document, **fields), chat=chat)
            assert (caught.value.code, caught.value.pointer) == (ErrorCode.DOCUMENT_TOO_SHORT, pointer)


def test_prompt_and_tokens_may_fill_the_context_and_not_exceed_it():
    prompts = [Prompt("d", "prose", (1,) * 6, conversation=False)]
    check_context(prompts, 10, 16, model="tiny")
    check_context(prompts, 10_000, None, model="tiny")
    with pytest.raises(HemostatError) as caught:
        check_context(prompts, 11, 16, model="tiny")
    assert caught.value.code == ErrorCode.WINDOW_TOO_LARGE
    assert caught.value.pointer == "/tokens"
