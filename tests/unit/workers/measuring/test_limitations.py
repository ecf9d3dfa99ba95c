"""What a verdict does not speak of follows from what was scored."""

import pytest

from workers.measuring.limitations import not_tested


def untested(**changes: object) -> str:
    given = {"longest_context": 511, "domains": ["prose", "code", "prose"], "conversations": 0}
    listed = not_tested(**{"whole_conversations": 0} | given | changes)  # type: ignore[arg-type]
    return " ".join(one.text for one in listed)


def test_what_was_not_tested_follows_from_what_was() -> None:
    assert "more than 511 tokens before it" in untested()
    assert "(code, prose)" in untested()
    assert "the reference wrote" in untested(self_corpus=True)
    assert "(text)" not in untested(domains=["text", "text"])


@pytest.mark.parametrize(
    ("conversations", "whole", "said", "unsaid"),
    [
        (0, 0, "without a chat template", "assistant"),
        (2, 0, "Messages of users", "Plain text"),
        (3, 0, "Plain text", "without a chat template"),
        (2, 2, "Other domains", "onversations"),
    ],
)
def test_only_the_form_that_no_document_has_is_untested(conversations: int, whole: int, said: str, unsaid: str) -> None:
    told = untested(conversations=conversations, whole_conversations=whole)
    assert said in told
    assert unsaid not in told
