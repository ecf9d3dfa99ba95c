import json

import pytest
from transformers import AutoTokenizer

from app.contracts.errors import ErrorCode, HemostatError
from app.models.tokenizers import (
    _content,
    check_tokenizer,
    compare_tokenizers,
    has_chat_template,
    tokenizer_fingerprint,
)
from tests.support.copies import edit_json


def difference(one, other):
    with pytest.raises(HemostatError) as caught:
        compare_tokenizers(one, other, names=("ref", "cand"), pointer="/candidate/model")
    assert caught.value.code is ErrorCode.VOCABULARY_MISMATCH
    assert caught.value.pointer == "/candidate/model"
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(other)
    return caught.value.detail


def same(one, other):
    compare_tokenizers(one, other)
    compare_tokenizers(other, one)
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)


def edit(folder, change):
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return folder


def test_how_the_file_is_written_does_not_matter(copy, tiny):
    def rewrite(data):
        data["model"]["vocab"] = dict(reversed(data["model"]["vocab"].items()))
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
        data["model"]["continuing_subword_prefix"] = ""
        data["normalizer"] = {"type": "Sequence", "normalizers": []}
        data["pre_tokenizer"]["trim_offsets"] = not data["pre_tokenizer"]["trim_offsets"]
        data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [data["pre_tokenizer"]]}
        data["decoder"] = None

    same(tiny(), edit(copy(), rewrite))


def test_the_first_differing_token_is_named_with_both(copy, tiny):
    def swap(data):
        vocabulary = data["model"]["vocab"]
        tokens = {index: token for token, index in vocabulary.items()}
        vocabulary[tokens[300]], vocabulary[tokens[310]] = 310, 300

    def token(folder, index):
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        return next(token for token, found in vocabulary.items() if found == index)

    changed = edit(copy(), swap)
    detail = difference(tiny(), changed)
    assert f"token 300 is {token(tiny(), 300)!r} in ref and {token(tiny(), 310)!r} in cand" in detail


def test_merges_count(copy, tiny):
    def swap(data):
        merges = data["model"]["merges"]
        merges[5], merges[6] = merges[6], merges[5]

    assert difference(tiny(), edit(copy(), swap)).startswith("merge 5 is ")

    def drop(data):
        data["model"]["merges"].pop()

    assert difference(tiny(), edit(copy(name="shorter"), drop)).startswith("merge 61 is ")


def test_what_changes_ids_counts(copy, tiny):
    for number, (change, told) in enumerate(
        (
            (lambda d: d.update(normalizer={"type": "NFC"}), "the normalizer"),
            (lambda d: d["pre_tokenizer"].update(add_prefix_space=True), "the pre-tokenizer"),
            (lambda d: d["model"].update(byte_fallback=True), "the tokenizer's model"),
            (lambda d: d["added_tokens"][1].update(lstrip=True), "added token 1 is "),
            (lambda d: d["added_tokens"].pop(1), "added token 1 is "),
        )
    ):
        assert told in difference(tiny(), edit(copy(name=f"{number}"), change))


BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
}
EOS = BOS | {"single": list(reversed(BOS["single"]))}


@pytest.mark.parametrize("stated", [None, True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_a_bos_is_what_transformers_adds(copy, bos, stated):
    folder = copy(bos=bos)
    edit_json(folder / "tokenizer_config.json", add_bos_token=stated, tokenizer_class="LlamaTokenizerFast")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = len(tokenizer.encode("ab")) - len(tokenizer.encode("ab", add_special_tokens=False))
    assert added == len(_content(folder).before) == int(bos)


def test_a_broken_tokenizer(copy, tiny):
    folder = copy()
    for text in ("", "[]", "{}", '{"model": 3}', '{"model": {"vocab": {"a": "x"}}}', "[" * 99999):
        (folder / "tokenizer.json").write_text(text)
        with pytest.raises(HemostatError) as caught:
            tokenizer_fingerprint(folder)
        assert caught.value.code is ErrorCode.CHECKPOINT_CORRUPT
    (folder / "tokenizer.json").unlink()
    with pytest.raises(HemostatError) as caught:
        compare_tokenizers(tiny(), folder)
    assert caught.value.code is ErrorCode.CHECKPOINT_INCOMPLETE


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "decoder"])
def test_a_pattern_that_may_explode_is_refused(copy, part):
    def change(data):
        data[part] = {"type": "Sequence", "parts": [data[part], {"type": "Split", "pattern": {"Regex": "(a+)+!"}}]}

    with pytest.raises(HemostatError, match="exponential") as caught:
        check_tokenizer(edit(copy(), change), 10**6, name="odd")
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED


def test_chat_templates(copy):
    folder = copy()
    assert has_chat_template(folder)
    (folder / "chat_template.jinja").unlink()
    assert not has_chat_template(folder)
    edit_json(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    assert has_chat_template(folder)
    several = [{"name": "default", "template": "x"}, {"name": "rag", "template": "y"}]
    edit_json(folder / "tokenizer_config.json", chat_template=several)
    assert has_chat_template(folder)
    edit_json(folder / "tokenizer_config.json", chat_template=several[1:])
    assert not has_chat_template(folder)
    (folder / "tokenizer_config.json").unlink()
    assert not has_chat_template(folder)


def test_a_tokenizer_of_another_model_is_refused_by_its_last_token(copy):
    folder = copy()
    tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
    last = max(tokens.values())
    check_tokenizer(folder, last + 1, name="tiny")
    with pytest.raises(HemostatError) as caught:
        check_tokenizer(folder, last, name="tiny", pointer="/reference/model")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.VOCABULARY_MISMATCH, "/reference/model")
    assert f"a token {last} (" in caught.value.detail
    assert f"vocab_size {last}" in caught.value.detail


def test_what_is_put_around_a_text_counts(copy, tiny):
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}
    both = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, BOS]}
    for number, (processor, where) in enumerate(
        ((BOS, "before"), (both, "before"), (EOS, "after"), (roberta, "before"))
    ):
        changed = edit(copy(name=f"{number}"), lambda data, new=processor: data.update(post_processor=new))
        assert difference(tiny(), changed) == f"what is put {where} a text is [] in ref and [0] in cand"
