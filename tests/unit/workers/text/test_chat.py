import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Message, ToolCall
from tests.support.refusals import refused
from tests.support.tiny import make_tokenizer
from workers.text.chat import chat_tokens, has_template, prompt_tokens, template_writes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Shapes that templates have in the wild; none marks the assistant's part.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<s>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}</s>\n{% endfor %}"
)
# Drops what was thought in all turns but the last.
THINKING = (
    "{% for m in messages %}<s>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}</s>\n{% endfor %}"
)
# Joins the arguments of calls as text, as the templates of DeepSeek R1 do.
CALLS_AS_TEXT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% for call in m['tool_calls'] %}{{ call['function']['name'] + '\n```json\n' + call['function']['arguments'] }}"
    "{% endfor %}</s>{% endfor %}"
)
ENDLESS = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"
OUT_OF_ITS_SANDBOX = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
# Says every message twice, as a summary of the conversation would.
QUOTING = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}(asked: {{ m['content'] }}){% endif %}{% endfor %}"
)


def talk(*turns: str) -> list[Message]:
    return [Message(role="assistant" if number % 2 else "user", content=turn) for number, turn in enumerate(turns)]


def spans(tokenizer: "PreTrainedTokenizerBase", messages: list[Message]) -> list[str]:
    """The runs of scored tokens, as text."""
    chat = chat_tokens(tokenizer, messages, name="Document 'd'")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chat.scored.astype(int), [0]])))
    return [tokenizer.decode(chat.tokens[start:end]) for start, end in edges.reshape(-1, 2)]


def with_template(template: str | None) -> "PreTrainedTokenizerBase":
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_smollm2_scores_the_assistant_s_words_and_the_end_of_its_turn(
    smollm2_tokenizer: "PreTrainedTokenizerBase",
) -> None:
    messages = [
        Message(role="system", content="You are assistant number 7."),
        *talk("What does an assistant do?", "It assists.\nAlways.", "assistant", "assistant"),
    ]
    assert spans(smollm2_tokenizer, messages) == ["It assists.\nAlways.<|im_end|>", "assistant<|im_end|>"]
    chat = chat_tokens(smollm2_tokenizer, messages, name="x")
    as_dicts = [message.model_dump() for message in messages]
    assert chat.tokens.tolist() == smollm2_tokenizer.apply_chat_template(as_dicts, return_dict=False)


def test_a_template_s_own_mask_is_taken_as_transformers_takes_it(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    messages = talk("The quick brown fox?", "jumps over 🙂 the dog", "And?", "measured in nats")
    oracle = plain_tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], return_assistant_tokens_mask=True, return_dict=True
    )
    chat = chat_tokens(plain_tokenizer, messages, name="x")
    assert chat.tokens.tolist() == oracle["input_ids"]
    # its template marks the user's part too: a template is taken at its word
    assert chat.scored.tolist() == [bool(value) for value in oracle["assistant_masks"]]


@pytest.mark.parametrize(
    ("template", "turns", "expected"),
    [
        (INST, ["hi", "  well, hello ", "and?", "bye"], ["well, hello</s>", "bye</s>"]),
        (ALTERNATING, ["user", "model", "user", "user"], ["model</s>", "user</s>"]),
        (THINKING, ["a", "<think>x</think>one", "b", "<think>y</think>two"], ["one</s>", "<think>y</think>two</s>"]),
        (QUOTING, ["what?", "what?", "when?", "asked: when?"], ["what?", "asked: when?"]),
    ],
)
def test_templates_without_a_mask(template: str, turns: list[str], expected: list[str]) -> None:
    found = [span.removeprefix(" ") for span in spans(with_template(template), talk(*turns))]
    assert found == expected


@pytest.mark.parametrize("answer", ["Q", "QZX", "Z...Q", "X", "Q Q Q", "QQQQQQQQQQQQQQQQQQQQQQQQ"])
def test_an_answer_may_look_like_the_placeholder(answer: str) -> None:
    assert spans(with_template(ALTERNATING), talk("Q?", answer, "Z?", answer)) == [f"{answer}</s>"] * 2


def test_an_empty_answer_scores_nothing(smollm2_tokenizer: "PreTrainedTokenizerBase") -> None:
    assert spans(smollm2_tokenizer, talk("a", "", "b", "yes")) == ["yes<|im_end|>"]


@pytest.mark.parametrize("turns", [["only a question"], ["a question", "  "]])
def test_a_conversation_without_a_word_of_the_assistant_is_refused(
    turns: list[str], smollm2_tokenizer: "PreTrainedTokenizerBase"
) -> None:
    with refused(ErrorCode.DOCUMENT_TOO_SHORT, "/text/documents/7", match="'d7'"):
        chat_tokens(smollm2_tokenizer, talk(*turns), name="Document 'd7'", pointer="/text/documents/7")


def test_no_template_is_an_error_of_its_own() -> None:
    tokenizer = with_template(None)
    assert not has_template(tokenizer)
    with refused(ErrorCode.CHAT_TEMPLATE_MISSING, match="'d7'"):
        chat_tokens(tokenizer, talk("a", "b"), name="Document 'd7'")


@pytest.mark.parametrize("said", ["one", "Must roles alternate? They must."])
def test_a_template_s_refusal_is_passed_on_also_if_a_message_says_it_too(said: str) -> None:
    messages = [Message(role="user", content=said), Message(role="user", content="two")]
    with refused(ErrorCode.INVALID_REQUEST, match=r"'d7'.*must alternate"):
        chat_tokens(with_template(ALTERNATING), messages, name="Document 'd7'")


@pytest.mark.parametrize("said", ["a secret", "secret"])
def test_a_refusal_that_quotes_a_message_is_not(said: str) -> None:
    template = "{{ raise_exception('cannot say ' + messages[0]['content']) }}"
    with pytest.raises(HemostatError) as caught:
        chat_tokens(with_template(template), talk(said, "b"), name="Document 'd'")
    assert "secret" not in caught.value.detail


def test_a_template_that_takes_no_arguments_but_text_gets_calls_in_the_message() -> None:
    tokenizer = with_template(CALLS_AS_TEXT)
    call = ToolCall(name="add", arguments={"a": 1})
    messages = [Message(role="user", content="add"), Message(role="assistant", tool_calls=(call,))]
    assert not template_writes(tokenizer, calls=True)
    said = "<tool_call>\n" + json.dumps({"name": "add", "arguments": {"a": 1}}) + "\n</tool_call></s>"
    assert spans(tokenizer, messages) == [said]


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content + 1 }}", "{{ 1 / 0 }}", "{{ 'x'.split('') }}", ENDLESS, OUT_OF_ITS_SANDBOX]
)
def test_a_template_that_fails_refuses_the_messages(template: str) -> None:
    with refused(ErrorCode.INVALID_REQUEST, "/text/documents/0") as caught:
        chat_tokens(with_template(template), talk("a", "b"), name="Document 'd'", pointer="/text/documents/0")
    assert caught.value.detail.startswith("Document 'd': the chat template refuses the messages")


def test_of_several_templates_the_default_is_taken_and_no_other() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": INST, "rag": QUOTING}
    assert spans(tokenizer, talk("one", "two")) == spans(with_template(INST), talk("one", "two"))
    tokenizer.chat_template = {"rag": INST}
    assert not has_template(tokenizer)
    with refused(ErrorCode.CHAT_TEMPLATE_MISSING):
        chat_tokens(tokenizer, talk("a", "b"), name="Document 'd'")


def test_a_prompt_ends_where_the_assistant_is_to_write(smollm2_tokenizer: "PreTrainedTokenizerBase") -> None:
    messages = talk("Tell me a story.")
    prompt = prompt_tokens(smollm2_tokenizer, messages)
    assert smollm2_tokenizer.decode(prompt).endswith("Tell me a story.<|im_end|>\n<|im_start|>assistant\n")
    answered = chat_tokens(smollm2_tokenizer, [*messages, *talk("", "Once.")[1:]], name="x")
    assert answered.tokens[: len(prompt)].tolist() == prompt.tolist()
    assert answered.scored[: len(prompt)].sum() == 0
    assert answered.scored[len(prompt)]
