import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.contracts.errors import ErrorCode
from tests.support.refusals import refused
from tests.support.stopping import StoppedError, stop_after
from workers.text import tokenization
from workers.text.tokenization import bos_of, encode, encode_with_offsets, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDS = ["the", "Über-cat", "猫", "ran;", "x", "=", "{'a':", "12}\n\n", "", "1,000", "times", "—", "🙂", "don't"]
WORDS += ["<|im_end|>", "stop\t"]


def prose(characters: int, seed: int = 0) -> str:
    choose = random.Random(seed)
    words: list[str] = []
    length = 0
    while length < characters:
        words.append(choose.choice(WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)


def whole(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "PIECE", 400)
    monkeypatch.setattr(tokenization, "OVERLAP", 160)


def test_the_bos_is_what_the_tokenizer_does_not_what_it_names(
    smollm2_tokenizer: "PreTrainedTokenizerBase",
    plain_tokenizer: "PreTrainedTokenizerBase",
    bos_tokenizer: "PreTrainedTokenizerBase",
) -> None:
    # both of the first name one, and add none
    assert smollm2_tokenizer.bos_token_id is not None
    assert bos_of(smollm2_tokenizer) is None
    assert plain_tokenizer.bos_token_id is not None
    assert bos_of(plain_tokenizer) is None
    assert bos_of(bos_tokenizer) == bos_tokenizer.bos_token_id == 0


def with_processor(template: str) -> "PreTrainedTokenizerBase":
    from tokenizers.processors import TemplateProcessing

    from tests.support.tiny import make_tokenizer

    tokenizer = make_tokenizer()
    processor = TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer


def test_more_than_one_token_before_a_text_is_refused() -> None:
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED):
        bos_of(with_processor("<s> </s> $A"))


def test_ids_have_no_special_tokens_and_are_int32(bos_tokenizer: "PreTrainedTokenizerBase") -> None:
    ids = encode(bos_tokenizer, "The quick brown fox")
    assert ids.dtype == np.int32
    assert 0 not in ids
    assert bos_tokenizer.decode(ids) == "The quick brown fox"
    assert encode(bos_tokenizer, "").shape == (0,)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("characters", [399, 400, 401, 640, 641, 5_000])
@pytest.mark.parametrize("which", ["smollm2_tokenizer", "plain_tokenizer"])
def test_pieces_joined_are_the_whole(which: str, characters: int, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(which)
    for seed in range(5):
        text = prose(characters, seed)[:characters]
        ids, offsets = encode_with_offsets(tokenizer, text)
        assert encode(tokenizer, text).tolist() == ids.tolist() == whole(tokenizer, text)
        expected = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        assert offsets.tolist() == [list(span) for span in expected]


def test_where_pieces_never_agree_the_text_is_cut_and_nothing_of_it_lost(
    plain_tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "PIECE", 100)
    # no run of 16 tokens lies within so few characters
    monkeypatch.setattr(tokenization, "OVERLAP", 12)
    text = prose(1_000)
    ids, offsets = encode_with_offsets(plain_tokenizer, text)
    assert plain_tokenizer.decode(ids) == text
    assert (np.diff(offsets[:, 0]) >= 0).all()
    assert offsets[-1, 1] == len(text)


def test_a_long_document_can_be_stopped_between_its_pieces(smollm2_tokenizer: "PreTrainedTokenizerBase") -> None:
    text = prose(2_000_000)
    with pytest.raises(StoppedError):
        encode(smollm2_tokenizer, text, check_cancelled=stop_after(1))


def test_load_tokenizer_names_a_checkpoint_without_one(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with refused(ErrorCode.CHECKPOINT_INCOMPLETE) as caught:
        load_tokenizer(folder)
    assert "'bare'" in caught.value.detail
    assert str(tmp_path) not in caught.value.detail


def test_a_tokenizer_is_read_once_until_its_files_change(
    tmp_path: Path, plain_tokenizer: "PreTrainedTokenizerBase", bos_tokenizer: "PreTrainedTokenizerBase"
) -> None:
    plain_tokenizer.save_pretrained(tmp_path)
    first = load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path) is first
    bos_tokenizer.save_pretrained(tmp_path)
    assert bos_of(first) is None
    assert bos_of(load_tokenizer(tmp_path)) == 0
