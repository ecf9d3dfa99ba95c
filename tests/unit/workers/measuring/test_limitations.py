"""What a verdict does not speak of follows from what was scored."""

import pytest

from workers.measuring.limitations import not_tested


def untested(**changes: object) -> str:
    given = {"longest_context": 511, "domains": ["prose", "code", "prose"], "conversations": 0}
    listed = not_tested(**{"whole_conversations": 0} | given | changes)  # type: ignore[arg-type]
    return " ".join(one.text for one in listed)


def test_what_was_not_tested_follows_from_what_was() -> None:
    plain = untested()
    assert "no scored position has more than 511 tokens before it" in plain
    assert "(code, prose)" in plain
    assert "Text of the model's own" in plain
    assert "sampled from the reference" in untested(self_corpus=True)
    assert "more than 1 token before it" in untested(longest_context=1)


def test_the_one_domain_that_only_says_text_is_not_repeated() -> None:
    assert "Other domains and languages than those of the text." in untested(domains=["text", "text"])
    assert "(code, text)" in untested(domains=["text", "code"])


@pytest.mark.parametrize(
    ("conversations", "said", "unsaid"),
    [
        (0, "Conversations: the text was scored as it is", "assistant"),
        (1, "of the 3 documents 1 is a conversation", "Plain text: only"),
        (2, "of the 3 documents 2 are conversations", "Plain text: only"),
        (3, "Plain text: only what an assistant says", "without a chat template"),
    ],
)
def test_only_the_form_that_no_document_has_is_untested(conversations: int, said: str, unsaid: str) -> None:
    told = untested(conversations=conversations)
    assert said in told
    assert unsaid not in told


@pytest.mark.parametrize(
    ("documents", "conversations", "whole", "said"),
    [
        (
            48,
            36,
            10,
            "Users' turns in 26 of the conversations: of the 48 documents 36 are conversations, of which 10 were "
            "scored whole and of the others only what the assistant says; the rest was scored whole, as plain text.",
        ),
        (3, 2, 1, "of which 1 was scored whole and of the others only what the assistant says"),
        (3, 3, 3, "Plain text: only conversations were scored, each of them whole."),
        (3, 3, 1, "Plain text: every document is a conversation, of which 1 was scored whole and of the others only"),
    ],
)
def test_a_conversation_that_is_scored_whole_is_not_said_to_lack_its_users_turns(
    documents: int, conversations: int, whole: int, said: str
) -> None:
    told = untested(domains=["text"] * documents, conversations=conversations, whole_conversations=whole)
    assert said in told
    assert "of which only what the assistant says" not in told
    assert "only what an assistant says in a conversation was scored" not in told


def test_no_form_is_untested_where_plain_text_and_whole_conversations_are_scored() -> None:
    told = untested(conversations=2, whole_conversations=2)
    assert told == untested().replace("Conversations: the text was scored as it is, without a chat template. ", "")
