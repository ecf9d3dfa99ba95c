from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from app.contracts.text import TextSource
from app.settings import Settings
from tests.support.tiny import make_tokenizer
from tests.unit.workers.text.transformers_sampler import TransformersSampler
from workers.text.sampler import ReferenceIdentity
from workers.text.sources import load_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def source(**fields: object) -> TextSource:
    made: TextSource = TypeAdapter(TextSource).validate_python(fields)
    return made


def test_each_source_gives_its_documents(
    settings: Callable[..., Settings], plain_tokenizer: "PreTrainedTokenizerBase", tiny: Callable[..., Path]
) -> None:
    use = settings()
    assert use.text_root is not None
    (use.text_root / "a.txt").write_text("from a file")
    inline = source(source="inline", documents=[{"id": "d", "text": "from the request"}])
    file = source(source="file", path="a.txt")
    shipped = source(source="shipped", documents=3)
    for given, expected in ((inline, ["d"]), (file, ["a.txt"])):
        documents = load_documents(given, settings=use, tokenizer=plain_tokenizer)
        assert [document.id for document in documents] == expected
    assert len(load_documents(shipped, settings=use, tokenizer=plain_tokenizer)) == 3
    sampled = load_documents(
        source(source="self", tokens=256),
        settings=use,
        tokenizer=plain_tokenizer,
        sampler=TransformersSampler(tiny("llama", max_position_embeddings=1024)),
        identity=ReferenceIdentity("w", "t", "e"),
    )
    assert all(document.id.startswith("self-") for document in sampled)


def test_the_shipped_text_fits_a_model_without_a_chat_template(settings: Callable[..., Settings]) -> None:
    base = make_tokenizer()
    base.chat_template = None
    documents = load_documents(source(source="shipped"), settings=settings(), tokenizer=base)
    assert all(document.messages is None for document in documents)
    chat = load_documents(source(source="shipped"), settings=settings(), tokenizer=make_tokenizer())
    assert any(document.messages is not None for document in chat)
    assert [document.id for document in documents] == [document.id for document in chat]
