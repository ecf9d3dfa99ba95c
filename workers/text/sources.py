"""From a request's text source to documents, whatever the source."""

from typing import TYPE_CHECKING

from app.contracts.text import FileText, HubText, InlineText, SelfText, ShippedText, TextSource
from app.settings import Settings
from workers.text.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.text.chat import has_template
from workers.text.documents import TextDocument, of_inline
from workers.text.files import load_files
from workers.text.hub import load_hub
from workers.text.sampler import ReferenceIdentity, Sampler
from workers.text.self_corpus import load_self
from workers.text.shipped import load_shipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_documents(
    source: TextSource,
    *,
    settings: Settings,
    tokenizer: "PreTrainedTokenizerBase",
    sampler: Sampler | None = None,
    identity: ReferenceIdentity | None = None,
    seed: int = 0,
    context: int | None = None,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[TextDocument]:
    """The documents of `source`, at least one, ids unique.

    `sampler`, `identity` and `context` (the model's longest sequence in tokens) are needed by the self source alone.
    The sampler is called only for what is not cached: pass a `DeferredSampler` to start an engine only then. What each
    source raises is in its own module; all of it is `HemostatError` or what `check_cancelled` raises."""
    match source:
        case InlineText():
            return of_inline(source.documents, settings=settings)
        case FileText():
            return load_files(source, settings=settings, progress=progress, check_cancelled=check_cancelled)
        case HubText():
            return load_hub(source, settings=settings, progress=progress, check_cancelled=check_cancelled)
        case ShippedText():
            return load_shipped(source.corpus, documents=source.documents, chat_template=has_template(tokenizer))
        case SelfText():
            if sampler is None or identity is None:
                raise TypeError("a self corpus needs a sampler and the reference's identity")
            return load_self(
                source,
                settings=settings,
                tokenizer=tokenizer,
                sampler=sampler,
                identity=identity,
                seed=seed,
                context=context,
                progress=progress,
                check_cancelled=check_cancelled,
            )
