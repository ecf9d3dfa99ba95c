"""The corpora that ship with the project: text of its own making, over many domains.

The *evaluation* corpus is what is scored unless a job names another text. The *calibration* corpus is for what looks at
activations before it changes weights. It shares no document and no passage with the evaluation corpus, so that nothing
is tuned on what it is judged by. The *classes* corpus holds what these have little of. So the classes of tokens
(`workers.text.token_classes`) have something to say of a model: tool calls, JSON and code in conversation, other
languages and scripts. Some of its conversations are scored whole, the template's tokens too. All are dedicated to the
public domain (CC0-1.0).
"""

from functools import cache
from pathlib import Path
from typing import Literal

from app.contracts.text import Document
from workers.text.documents import TextDocument
from workers.text.tool_form import with_calls, with_tools

Corpus = Literal["evaluation", "calibration", "classes"]
DATA = Path(__file__).parent / "data"


@cache
def shipped_documents(corpus: Corpus) -> tuple[Document, ...]:
    """All documents of a shipped corpus, in the order of its file."""
    lines = (DATA / f"{corpus}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Document.model_validate_json(line) for line in lines)


def load_shipped(
    corpus: Corpus = "evaluation", *, documents: int | None = None, chat_template: bool = True
) -> list[TextDocument]:
    """The corpus, domains in turn, so that its first `documents` cover as many domains as they can.

    Without a chat template (a base model) conversations become plain transcripts: the corpus fits every model.
    """
    by_domain: dict[str, list[Document]] = {}
    for document in shipped_documents(corpus):
        by_domain.setdefault(document.domain, []).append(document)
    longest = max(len(many) for many in by_domain.values())
    ordered = [many[turn] for turn in range(longest) for many in by_domain.values() if turn < len(many)]
    return [
        TextDocument.of(document) if chat_template or document.messages is None else _transcript(document)
        for document in ordered[:documents]
    ]


def _transcript(document: Document) -> TextDocument:
    messages = with_calls(document.messages or ())
    if document.tools:
        messages = with_tools(messages, document.tools)
    turns = (f"{message.role.capitalize()}: {message.content}" for message in messages)
    return TextDocument(document.id, document.domain, text="\n\n".join(turns))
