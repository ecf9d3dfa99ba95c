"""How much text a source has, before it is read."""

from pathlib import Path
from typing import Final

from app.contracts.text import FileText, HubText, InlineText, SelfText, ShippedText, TextSource
from app.models.texts import text_files
from app.settings import Settings

BYTES_A_TOKEN: Final = 4.0
SHIPPED: Final = Path(__file__).resolve().parents[2] / "workers" / "text" / "data"


def measure(text: TextSource, settings: Settings) -> tuple[int | None, int, str]:
    """(documents, tokens, how they were found)."""
    rule = f"{BYTES_A_TOKEN:.0f} bytes of text a token"
    if isinstance(text, SelfText):
        return None, text.tokens, "as many tokens as the self corpus asks for; sampling them takes time besides"
    if isinstance(text, HubText):
        tokens = 500 * text.documents
        return text.documents, tokens, "500 tokens a document: a hub data set is not read before the job runs"
    if isinstance(text, InlineText):
        size = sum(
            len(part.encode())
            for document in text.documents
            for part in ([document.text] if document.text is not None else [m.content for m in document.messages or ()])
        )
        return len(text.documents), _tokens(size), rule
    if isinstance(text, FileText):
        files = text_files(text, settings)
        plain = all(file.suffix.lower() == ".txt" for file in files)
        return len(files) if plain else None, _tokens(sum(file.stat().st_size for file in files)), rule
    return _measure_shipped(text, rule)


def _measure_shipped(text: ShippedText, rule: str) -> tuple[int | None, int, str]:
    file = SHIPPED / f"{text.corpus}.jsonl"
    if not file.is_file():
        return text.documents, 300 * (text.documents or 100), "300 tokens a document of the shipped corpus"
    data = file.read_bytes()
    lines = data.count(b"\n")
    documents = min(text.documents or lines, lines)
    return documents, _tokens(len(data) * documents // max(lines, 1)), rule


def _tokens(size: int) -> int:
    return max(2, round(size / BYTES_A_TOKEN))
