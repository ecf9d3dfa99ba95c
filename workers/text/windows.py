"""Documents to windows: what exactly is scored.

The protocol: each document is tokenized without special tokens and cut into windows that do not overlap and do not
cross documents. A window holds at most `window` tokens, the BOS included where the tokenizer adds one. Every position
that has a next token is scored, the first one included (with a BOS the first token of the text is predicted from it).
The last, shorter window counts from two tokens on, and a remainder of a single token is left out and counted. Of a
conversation only the assistant's tokens are scored unless it asks for all, of a self corpus only the sampled ones.
Nothing is padded.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from app.contracts.errors import ErrorCode, HemostatError
from workers.text.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.text.chat import chat_tokens
from workers.text.documents import TextDocument
from workers.text.tokenization import Ids, bos_of, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mask = npt.NDArray[np.bool_]
_FORMAT = b"hemostat.corpus/1"


@dataclass(frozen=True)
class Window:
    """What the models read at once.

    `tokens` (T,) int32 begins with the BOS where the corpus has one; `scored` (T-1,) bool shows for each position that
    has a next token whether it counts. `document` is the index in `Corpus.documents`, `start` the index, in that
    document's tokens, of the first token of the window that is not the BOS.
    """

    document: int
    start: int
    tokens: Ids
    scored: Mask


@dataclass(frozen=True)
class DocumentInfo:
    """A document of the corpus: its number of tokens (no BOS), and how many positions of it are scored."""

    id: str
    domain: str
    tokens: int
    scored: int


class Windows(Sequence[Window]):
    """The windows of a corpus, each made when it is asked for: a corpus of small windows would be all objects."""

    def __init__(
        self,
        documents: Sequence[tuple[Ids, Mask | None]],
        index: npt.NDArray[np.int64],
        bos: int | None,
    ) -> None:
        """`index` (N, 3) holds document, start and number of text tokens of each window."""
        self._documents = documents
        self._index = index
        self._bos = bos

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> "Windows": ...
    def __getitem__(self, index: int | slice) -> "Window | Windows":
        if isinstance(index, slice):
            return Windows(self._documents, self._index[index], self._bos)
        document, start, length = (int(value) for value in self._index[index])
        tokens, scored = self._documents[document]
        text = tokens[start : start + length]
        first = 1 if self._bos is None else 0
        if self._bos is not None:
            text = np.concatenate([np.asarray([self._bos], dtype=np.int32), text])
        mask = np.ones(len(text) - 1, dtype=np.bool_) if scored is None else scored[start + first : start + length]
        return Window(document, start, text, mask)

    def __iter__(self) -> Iterator[Window]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Corpus:
    """Everything the models are compared on.

    `tokens` is what the models read (each window with its BOS), `scored` the number of positions that count.
    `left_out_tokens` counts remainders of a single token, `left_out_windows` windows without a scored position (the
    middle of a long user message): neither is read. `fingerprint` is a SHA-256 over token ids, boundaries, masks and
    BOS: equal fingerprints mean that the same was measured. `protocol` says all of it in a sentence. `conversations`
    counts the documents that are conversations, `whole_conversations` those of which every token is scored;
    `chat_template` is whether there are any. `repeated` counts the documents whose tokens are those of an earlier one.
    """

    windows: Sequence[Window]
    documents: tuple[DocumentInfo, ...]
    window: int
    stride: int
    bos: bool
    chat_template: bool
    tokens: int
    scored: int
    left_out_tokens: int
    left_out_windows: int
    fingerprint: str
    protocol: str
    conversations: int = 0
    whole_conversations: int = 0
    repeated: int = 0


def make_windows(
    documents: Sequence[TextDocument],
    tokenizer: "PreTrainedTokenizerBase",
    window: int,
    *,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Corpus:
    """Tokenizes and cuts `documents` into windows of at most `window` >= 2 tokens.

    Raises DOCUMENT_TOO_SHORT for a document of fewer than two tokens, or a conversation without a word of the
    assistant's; CHAT_TEMPLATE_MISSING; INVALID_REQUEST if the chat template refuses a conversation. Errors name the
    document's id.
    """
    if window < 2:
        raise ValueError("a window of fewer than two tokens has nothing to score")
    bos = bos_of(tokenizer)
    stride = window - (bos is not None)
    tokenized: list[tuple[Ids, Mask | None]] = []
    rows: list[npt.NDArray[np.int64]] = []
    infos: list[DocumentInfo] = []
    left_out_tokens = left_out_windows = 0
    distinct: set[bytes] = set()
    for number, document in enumerate(documents):
        check_cancelled()
        progress("tokenize", number, len(documents))
        tokens, mask = document_tokens(document, tokenizer, bos, check_cancelled)
        cut = _cut(len(tokens), stride, bos is not None)
        left_out_tokens += len(tokens) - int(cut[:, 1].sum())
        counts = _scored_counts(cut, mask, bos is not None)
        left_out_windows += int((counts == 0).sum())
        cut = cut[counts > 0]
        tokenized.append((tokens, mask))
        distinct.add(hashlib.sha256(tokens.tobytes()).digest())
        rows.append(np.column_stack([np.full(len(cut), number, dtype=np.int64), cut]))
        infos.append(DocumentInfo(document.id, document.domain, len(tokens), int(counts.sum())))
    progress("tokenize", len(documents), len(documents))
    index = np.concatenate(rows) if rows else np.empty((0, 3), dtype=np.int64)
    windows = Windows(tokenized, index, bos)
    conversations = sum(document.messages is not None for document in documents)
    chat = conversations > 0
    whole = sum(document.messages is not None and document.scored == "all" for document in documents)
    sampled = any(document.tokens is not None for document in documents)
    return Corpus(
        windows=windows,
        documents=tuple(infos),
        window=window,
        stride=stride,
        bos=bos is not None,
        chat_template=chat,
        tokens=int(index[:, 2].sum()) + len(index) * (bos is not None),
        scored=sum(info.scored for info in infos),
        left_out_tokens=left_out_tokens,
        left_out_windows=left_out_windows,
        fingerprint=_fingerprint(windows, window, bos, check_cancelled),
        protocol=_protocol(window, stride, bos is not None, chat, sampled, whole > 0),
        conversations=conversations,
        whole_conversations=whole,
        repeated=len(infos) - len(distinct),
    )


def document_tokens(
    document: TextDocument, tokenizer: "PreTrainedTokenizerBase", bos: int | None, check_cancelled: CheckCancelled
) -> tuple[Ids, Mask | None]:
    """The document's tokens without BOS and, where not all of them count, which do. Raises DOCUMENT_TOO_SHORT for fewer
    than two."""
    name = f"Document {document.id!r}"
    mask: Mask | None = None
    if document.messages is not None:
        chat = chat_tokens(
            tokenizer,
            document.messages,
            name=name,
            pointer=document.pointer,
            tools=document.tools or (),
            everything=document.scored == "all",
            check_cancelled=check_cancelled,
        )
        tokens, mask = chat.tokens, chat.scored
    elif document.tokens is not None:
        tokens = document.tokens
        mask = np.arange(len(tokens)) >= document.scored_from
    else:
        tokens = encode(tokenizer, document.text or "", check_cancelled=check_cancelled)
    if mask is not None and bos is not None and len(tokens) and int(tokens[0]) == bos:
        # Templates write the BOS themselves; every window gets one here.
        tokens, mask = tokens[1:], mask[1:]
    if len(tokens) < 2:
        raise HemostatError(
            ErrorCode.DOCUMENT_TOO_SHORT,
            f"{name} has {len(tokens)} token{'' if len(tokens) == 1 else 's'}; at least two are needed.",
            hint="Leave it out, or join it with another: a single token has no next token to predict.",
            pointer=document.pointer,
        )
    return tokens, mask


def _cut(tokens: int, stride: int, bos: bool) -> npt.NDArray[np.int64]:
    """(N, 2) start and length of the windows of a document; a last one of too few tokens to score is not among them."""
    starts = np.arange(0, tokens, stride, dtype=np.int64)
    lengths = np.minimum(stride, tokens - starts)
    kept = lengths + bos >= 2
    return np.column_stack([starts[kept], lengths[kept]])


def _scored_counts(cut: npt.NDArray[np.int64], mask: Mask | None, bos: bool) -> npt.NDArray[np.int64]:
    """(N,) scored positions of each window. Without a BOS the first token of a window is predicted by nothing."""
    starts, lengths = cut[:, 0] + (0 if bos else 1), cut[:, 1]
    ends = cut[:, 0] + lengths
    if mask is None:
        return np.asarray(ends - starts, dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    return np.asarray(before[ends] - before[starts], dtype=np.int64)


def _fingerprint(windows: Windows, window: int, bos: int | None, check_cancelled: CheckCancelled) -> str:
    digest = hashlib.sha256(_FORMAT)
    digest.update(np.asarray([window, -1 if bos is None else bos, len(windows)], dtype="<i8").tobytes())
    for number, item in enumerate(windows):
        if number % 1024 == 0:
            check_cancelled()
        digest.update(np.asarray([item.document, item.start, len(item.tokens)], dtype="<i8").tobytes())
        digest.update(item.tokens.astype("<i4").tobytes())
        digest.update(np.packbits(item.scored).tobytes())
    return digest.hexdigest()


def _protocol(window: int, stride: int, bos: bool, chat: bool, sampled: bool, whole: bool) -> str:
    begin = "each begins with the BOS" if bos else "without BOS"
    scored = f"scored is every token after the {'BOS' if bos else 'first of its window'}"
    if chat:
        scored += ", of conversations only what the assistant wrote"
    if whole:
        scored += " unless a document asks for all of its tokens"
    if sampled:
        scored += ", of sampled text only what was sampled"
    return (
        f"documents tokenized without special tokens, cut into windows of at most {window} tokens that do not overlap "
        f"(stride {stride}) and do not cross documents, {begin}; {scored}; "
        "a shorter last window counts from two tokens on"
    )
