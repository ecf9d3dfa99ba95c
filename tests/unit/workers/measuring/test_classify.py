"""Classes at scored positions, through a real tokenizer and the windows that are scored."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from app.contracts.text import Document
from tests.support.tiny import make_tokenizer
from workers.distributions.token_values import Positions
from workers.measuring.classify import Classified, classify
from workers.measuring.positions import positions_of
from workers.text.documents import TextDocument
from workers.text.shipped import load_shipped
from workers.text.token_classes.catalogue import CLASSES
from workers.text.token_classes.reading import decoded
from workers.text.tokenization import load_tokenizer
from workers.text.windows import make_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HERMES = (
    "{% if tools %}<s>tools {% for t in tools %}{{ t | tojson }}{% endfor %}</s>{% endif %}"
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}"
    "{% if m['tool_calls'] %}{% for c in m['tool_calls'] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "{% endif %}</s>\n{% endfor %}"
)


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2: Path) -> "PreTrainedTokenizerBase":
    return load_tokenizer(smollm2)


def classified(
    documents: list[TextDocument], tokenizer: "PreTrainedTokenizerBase", window: int = 512
) -> tuple[Classified, Positions]:
    corpus = make_windows(documents, tokenizer, window)
    positions = positions_of(corpus)
    return classify(documents, corpus, positions, tokenizer, vocabulary=len(tokenizer)), positions


def text_of(tokenizer: "PreTrainedTokenizerBase", positions: Positions, mask: np.ndarray) -> str:
    return str(tokenizer.decode(positions.token_id[mask].tolist()))


@pytest.mark.parametrize("corpus", ["evaluation", "classes"])
def test_no_class_is_empty_on_the_shipped_texts(corpus: str, smollm2_tokenizer: "PreTrainedTokenizerBase") -> None:
    documents = load_shipped(corpus)  # type: ignore[arg-type]
    found, positions = classified(documents, smollm2_tokenizer)
    assert set(found.masks) == {one.name for one in CLASSES}
    assert all(mask.any() for mask in found.masks.values())
    if corpus == "classes":  # enough documents that intervals are clustered by them
        assert all(np.unique(positions.document[mask]).size >= 6 for mask in found.masks.values())
        domains = np.asarray([document.domain for document in documents])[positions.document]
        assert (domains[found.masks["tool_name"]] == "calls").all()
        assert found.masks["non_english"][domains == "languages"].mean() > 0.95
        assert found.masks["non_english"][domains != "languages"].mean() < 0.02


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("window", [8, 512])
def test_masks_follow_the_windows(bos: bool, window: int) -> None:
    tokenizer = make_tokenizer(bos=bos)
    documents = [
        TextDocument(str(number), "text", text=f"He saw {number}37 foxes and 4,5 dogs. " * 3) for number in range(3)
    ]
    found, positions = classified(documents, tokenizer, window)
    for document in range(3):
        mask = found.masks["numbers"] & (positions.document == document)
        assert set(text_of(tokenizer, positions, mask)) <= set(f"{document}37 4,5")
        digits = sum(character.isdigit() for character in text_of(tokenizer, positions, positions.document == document))
        assert sum(character.isdigit() for character in text_of(tokenizer, positions, mask)) == digits


def conversation(scored: str = "assistant") -> TextDocument:
    return TextDocument.of(
        Document.model_validate(
            {
                "id": "d",
                "scored": scored,
                "tools": [{"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}],
                "messages": [
                    {"role": "user", "content": "add two"},
                    {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": 2}}]},
                    {"role": "tool", "content": '{"sum": 2}'},
                    {"role": "assistant", "content": "It is two."},
                ],
            }
        )
    )


def test_calls_that_the_template_writes() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = HERMES
    found, positions = classified([conversation()], tokenizer)
    said = text_of(tokenizer, positions, np.ones(len(positions), dtype=np.bool_))
    assert said.startswith('<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call></s>')
    assert said.endswith("It is two.</s>")
    assert text_of(tokenizer, positions, found.masks["tool_name"]).strip('"') == "add"
    assert text_of(tokenizer, positions, found.masks["tool_arguments"]).strip() in ('{"a": 2}', '{"a": 2}}')
    assert text_of(tokenizer, positions, found.masks["template"]).count("</s>") == 2


def test_sampled_text_has_answers_and_the_template_s_tokens() -> None:
    tokenizer = make_tokenizer()
    tokens = np.asarray(tokenizer("<s>user 12</s>The dog 34 jumps over it all</s>")["input_ids"], dtype=np.int32)
    begin = int(np.flatnonzero(tokens == 1)[0]) + 1
    document = TextDocument("s", "prose", tokens=tokens, scored_from=begin)
    found, positions = classified([document], tokenizer)
    assert positions.position.min() == begin
    assert found.masks["answer_start"].sum() == 8
    assert text_of(tokenizer, positions, found.masks["numbers"]).strip() == "34"
    assert text_of(tokenizer, positions, found.masks["template"]) == "</s>"


def test_exact_tokens_are_decoded_in_place() -> None:
    tokenizer = make_tokenizer()
    text = "The dog 🙂 jumps é over 東京. " * 20
    tokens = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
    whole, offsets = decoded(tokens, tokenizer)
    assert whole == text
    oracle = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = [end for _, end in oracle]
    assert [int(end) for _, end in offsets] == ends


def test_words_stay_apart_where_a_tokenizer_drops_the_space_before_what_it_decodes() -> None:
    """As tokenizers made with SentencePiece do, whose characters may be single bytes as well."""
    pieces = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    pieces.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    sentence = "We met Anna in Paris and saw that Berlin was 12 miles off. "
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces.train_from_iterator(
        [sentence] * 20, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>")
    for odd in ("", "東", "東京🙂", "a 東 "):
        text = (sentence + odd) * 12
        tokens = np.asarray(tokenizer(text)["input_ids"], dtype=np.int32)
        assert len(tokens) > 128
        whole, offsets = decoded(tokens, tokenizer)
        assert whole == text
        assert offsets[-1, 1] == len(text)
        words = {whole[start:end].strip() for start, end in offsets if whole[start:end].startswith(" ")}
        assert {"Paris", "12"} <= words


def test_documents_that_were_not_scored_are_refused() -> None:
    tokenizer = make_tokenizer()
    scored = [TextDocument("a", "text", text="the lazy dog jumps over")]
    corpus = make_windows(scored, tokenizer, 64)
    other = [TextDocument("a", "text", text="the lazy fox jumps over")]
    with pytest.raises(RuntimeError, match="other tokens"):
        classify(other, corpus, positions_of(corpus), tokenizer, vocabulary=len(tokenizer))


def test_what_is_in_no_class_is_the_rest() -> None:
    found, positions = classified([TextDocument("a", "text", text="He saw 37 foxes there. " * 3)], make_tokenizer())
    of_any = np.stack(list(found.masks.values())).any(axis=0)
    assert 0 < of_any.sum() < len(positions)
    assert (found.of_none == ~of_any).all()
    assert list(found.with_none()) == [*found.masks, "none"]
