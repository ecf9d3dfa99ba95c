"""Prompts end where a tool is to be called."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Document
from tests.support.tiny import make_tokenizer
from workers.diagnosis.compare.tool_calls.prompts import prompts_of
from workers.text.documents import TextDocument

SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}}


def document(number, *, call=True, parameters=None):
    last = {"tool_calls": [{"name": "add", "arguments": {"a": 1}}]} if call else {"content": "the lazy dog"}
    return TextDocument.of(
        Document.model_validate(
            {
                "id": f"d{number}",
                "tools": [{"name": "add", "parameters": SCHEMA if parameters is None else parameters}],
                "messages": [
                    {"role": "user", "content": "one"},
                    {"role": "assistant", "content": "two"},
                    {"role": "user", "content": "three"},
                    {"role": "assistant"} | last,
                    {"role": "user", "content": "four"},
                ],
            }
        )
    )


def test_the_prompt_is_the_conversation_before_the_first_call():
    tokenizer = make_tokenizer()
    plain = TextDocument("p", "text", text="no tools")
    found = prompts_of([plain, document(0), document(1, call=False), document(2)], tokenizer, 2, None)
    assert [(prompt.document, prompt.expected) for prompt in found] == [("d0", "add"), ("d1", None)]
    first, second = (str(tokenizer.decode(list(prompt.tokens))) for prompt in found)
    assert first.endswith("<s>user\nthree</s>\n<s>assistant\n")
    assert '"name": "add"' in first
    assert second.endswith("<s>user\none</s>\n<s>assistant\n")


def test_a_bos_stands_before_it():
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    (prompt,) = prompts_of([document(0)], tokenizer, 9, 0)
    assert prompt.tokens[0] == 0
    assert prompt.tokens[1] != 0


@pytest.mark.parametrize(
    "parameters", [{"type": "thing"}, {"$ref": "http://127.0.0.1:9/a.json"}, {"properties": {"a": {"$ref": "b.json"}}}]
)
def test_parameters_that_are_no_schema_are_refused(parameters):
    with pytest.raises(HemostatError, match="'d0'") as caught:
        prompts_of([document(0, parameters=parameters)], make_tokenizer(), 9, None)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, "/generate_tool_calls/text")


def test_a_text_without_tools_is_refused():
    with pytest.raises(HemostatError, match="No document") as caught:
        prompts_of([TextDocument("p", "text", text="no tools")], make_tokenizer(), 9, None)
    assert caught.value.pointer == "/generate_tool_calls/text"
