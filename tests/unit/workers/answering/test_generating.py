"""What an answer adds to its prompt, with tokenizers of both kinds."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.support.tiny import make_tokenizer
from workers.answering.answers import STOPS
from workers.answering.generating import special_stops, written


def sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer whose decoder takes off the space that a text begins with, as Llama 2's does."""
    words = ["<unk>", "</s>", "▁def", "▁f():", "▁▁▁▁return", "▁1", "▁."]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.add_special_tokens([AddedToken("</s>", special=True), AddedToken("<|im_end|>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", clean_up_tokenization_spaces=True)


def test_an_answer_keeps_the_spaces_that_it_begins_with() -> None:
    tokenizer = sentencepiece()
    assert not tokenizer.decode([4, 5]).startswith("    return")  # by itself it has lost them
    assert written(tokenizer, [2, 3], [4, 5]) == "    return 1"


def test_no_space_before_a_full_stop_is_tidied_away() -> None:
    assert written(sentencepiece(), [2, 3], [5, 6]) == " 1 ."


def test_special_tokens_are_left_out() -> None:
    assert written(sentencepiece(), [2, 3], [5, 1]) == " 1"


def test_a_tokenizer_of_bytes_gives_the_same_as_by_itself() -> None:
    tokenizer = make_tokenizer()
    prompt, answer = tokenizer.encode("The quick"), tokenizer.encode(" brown fox")
    assert written(tokenizer, prompt, answer) == tokenizer.decode(answer) == " brown fox"


def test_a_stop_that_decoding_leaves_out_ends_the_answer_as_a_token() -> None:
    tokenizer = sentencepiece()
    (end,) = tokenizer.encode("<|im_end|>", add_special_tokens=False)
    assert "<|im_end|>" not in written(tokenizer, [2, 3], [5, end, 5])
    assert special_stops(tokenizer, STOPS["gsm8k"]) == {1, end}


def test_code_ends_at_the_end_of_text_alone() -> None:
    """A stop that is written out is found in the text, and needs no token."""
    assert special_stops(sentencepiece(), STOPS["humaneval"]) == {1}
    plain = make_tokenizer()
    plain.eos_token = None
    assert special_stops(plain, STOPS["humaneval"]) == set()
