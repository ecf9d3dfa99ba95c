"""Items become token rows: split as the harness splits, cut from the left."""

import numpy as np

from app.contracts.errors import ErrorCode
from app.models.tasks.items import Item
from tests.support.refusals import refused
from tests.support.tiny import make_tokenizer
from workers.answering.prompts import choice_prompts, encode_pair, open_prompts
from workers.text.tokenization import encode

TOKENIZER = make_tokenizer()


def rows(items: list[Item], limit: int, bos: int | None = None):  # type: ignore[no-untyped-def]
    return choice_prompts(items, TOKENIZER, bos, limit, pointer="/tasks/0", check_cancelled=lambda: None)


def test_the_space_before_an_answer_belongs_to_it() -> None:
    before, after = encode_pair(TOKENIZER, "The lazy ", "dog")
    assert TOKENIZER.decode(before) == "The lazy"
    assert TOKENIZER.decode(after) == " dog"
    whole = encode(TOKENIZER, "The lazy dog")
    assert np.array_equal(np.concatenate([before, after]), whole)


def test_the_tokens_of_the_choice_are_scored_and_no_other() -> None:
    item = Item("i", "The quick brown fox", choices=("jumps over", "dog"), gold=0)
    found = rows([item, item], 64, bos=0)
    assert (found.item, found.choice) == ((0, 0, 1, 1), (0, 1, 0, 1))
    assert found.shortened == 0
    for window, choice in zip(found.windows, found.choice, strict=True):
        assert window.tokens[0] == 0
        scored = window.tokens[1:][window.scored]
        assert TOKENIZER.decode(scored) == f" {item.choices[choice]}"
        assert not window.scored[: len(window.scored) - len(scored)].any()
    assert found.longest == max(len(window.tokens) for window in found.windows)


def test_what_is_too_long_loses_its_beginning() -> None:
    item = Item("i", "one two three four five six seven", choices=("eight", "nine"), gold=0)
    found = rows([item], 6, bos=0)
    assert found.shortened == 1
    for window in found.windows:
        assert len(window.tokens) == 6
        assert window.tokens[0] == 0
    assert TOKENIZER.decode(found.windows[0].tokens[1:]).endswith("en eight")


def test_an_answer_longer_than_the_context_is_refused() -> None:
    item = Item("i-7", "Q", choices=("eight nine ten " * 8, "nine"), gold=0)
    with refused(ErrorCode.WINDOW_TOO_LARGE, "/tasks/0", match="'i-7' takes"):
        rows([item], 8)


def test_open_prompts_are_read_whole_and_score_nothing() -> None:
    items = [Item("a", "one two"), Item("b", "one two three four five six seven eight")]
    found = open_prompts(items, TOKENIZER, None, 6, pointer="/tasks/0", check_cancelled=lambda: None)
    assert found.shortened == 1
    assert TOKENIZER.decode(found.windows[0].tokens) == "one two"
    assert TOKENIZER.decode(found.windows[1].tokens).endswith("en eight")
    assert not any(window.scored.any() for window in found.windows)


def test_other_rows_have_another_fingerprint() -> None:
    one = Item("i", "The quick brown fox", choices=("jumps", "dog"), gold=0)
    other = Item("i", "The quick brown fox", choices=("jumps", "lazy"), gold=0)
    assert rows([one], 64).fingerprint == rows([one], 64).fingerprint
    assert rows([one], 64).fingerprint != rows([other], 64).fingerprint
