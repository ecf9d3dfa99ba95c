"""The kinds of generated tokens, through a real tokenizer: a text is judged with its prompt, by its own path."""

import json

import numpy as np

from tests.support.tiny import make_tokenizer
from workers.decoding.model import Continuation
from workers.diagnosis.trajectory.classes import classify_path
from workers.diagnosis.trajectory.prompts import Prompt

TOKENIZER = make_tokenizer()
END = TOKENIZER.eos_token_id


def ids(text):
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def path(*texts, domain="prose", chat=False, end=False):
    """Prompts and what was written behind them."""
    prompts = [
        Prompt(
            str(number), domain, ids(f"<s>user\n{prompt}</s>\n<s>assistant\n" if chat else prompt), conversation=chat
        )
        for number, (prompt, _) in enumerate(texts)
    ]
    written = [Continuation((*ids(text), *[END] * end), ended=end) for _, text in texts]
    return Told(written, classify_path(prompts, written, TOKENIZER, vocabulary=len(TOKENIZER)))


class Told:
    def __init__(self, written, found):
        self.tokens = [token for text in written for token in text.tokens]
        self.found = found

    def __getitem__(self, name):
        """The tokens of a class, joined; without white space, which is a token of its own here."""
        mask = self.found.masks[name]
        assert mask.size == len(self.tokens)
        told = str(TOKENIZER.decode([token for token, one in zip(self.tokens, mask, strict=True) if one]))
        return "".join(told.split())


def test_only_what_was_written_is_told_of():
    told = path(("It cost 12 and", " then 345 more"), ("No number, 7", " but 89"))
    assert told["numbers"] == "34589"


def test_a_word_that_the_prompt_begins_goes_on_in_the_text():
    """`1,2` is written on as `50`: one number, whose separator is the prompt's."""
    assert path(("It cost 1,2", "50 or so"))["numbers"] == "50"
    assert path(("in Program `x = ", "y` then"))["code"] == "y"


def test_the_token_that_ends_a_text_is_the_template_s():
    for chat in (False, True):
        told = path(("The dog", " jumps."), chat=chat, end=True)
        assert told["template"] == "</s>"
        assert path(("The dog", " jumps."), chat=chat)["template"] == ""


def test_bytes_of_half_a_character_are_not_taken_for_the_template_s():
    half = [*ids("é")[:1], END]
    found = classify_path(
        [Prompt("a", "prose", ids("x"), conversation=False)],
        [Continuation(tuple(half), ended=True)],
        TOKENIZER,
        vocabulary=len(TOKENIZER),
    )
    assert found.masks["template"].tolist() == [False, True]


def test_the_first_tokens_of_each_text_are_an_answer_s():
    long, short = " the lazy dog jumps over the quick brown fox and over it all", " yes"
    told = path(("One", long), ("Two", short))
    found = told.found.masks["answer_start"]
    length = len(ids(long))
    assert np.flatnonzero(found[:length]).tolist() == list(range(8))
    assert found[length:].tolist() == [True] * len(ids(short))


def test_a_tool_call_that_is_written_as_json_is_found_in_the_answer_alone():
    call = json.dumps({"name": "add", "parameters": {"a": 12}})
    told = path((f"Call it like {call}", f" so {call}."), chat=True)
    assert told["tool_name"].strip('"') == "add"
    assert json.loads(told["tool_arguments"]) == {"a": 12}
    assert set(told["json_structure"]) <= set('{}":, ')
    assert told["json_structure"].count("}") == 2
    half = path(("Call it", ' {"name": "add", "parameters": {"a": 12'), chat=True)
    assert half["tool_name"] == half["json_structure"] == ""


def test_a_plain_text_goes_on_in_the_prompt_s_language_and_an_answer_begins_anew():
    german, more = "Die Frau ist nicht in der Stadt und hat das", " Haus Hof Feld."
    assert path((german, more))["non_english"] == "HausHofFeld."
    assert path((german, more), chat=True)["non_english"] == ""
    assert path((german, " Haus ist nicht das von dem Mann."), chat=True)["non_english"].startswith("Haus")


def test_names_are_known_by_the_prompts_and_the_texts_of_the_path():
    known, unknown = ("We met Ilse there", ". She went."), ("Once", ". Ilse went off")
    assert path(unknown)["names"] == ""  # it begins a sentence, and stands nowhere else
    assert path(known, unknown)["names"] == "Ilse"
    assert path(known, unknown, ("An", " ilse is a fish"))["names"] == ""


def test_rare_tokens_are_counted_along_the_path():
    """`7` stands once, `8` three times; of a token that a prompt repeats, the prompt's are counted, too."""
    told = path(("the dog", "7"), ("a dog", "888"))
    assert told["rare"] == "7"
    assert path(("the dog 77", "7"), ("a dog", "8"))["rare"] == "8"
