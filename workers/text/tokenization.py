"""Text to token ids, without special tokens, in bounded memory.

A fast tokenizer keeps some hundred bytes per token while it encodes, so a document of many megabytes is encoded in
overlapping pieces. Two neighbouring pieces are joined where both agree on a run of tokens well inside the overlap. From
there on a tokenizer that looks only a bounded distance back gives what it would have given for the whole text. Where
they never agree (one endless word), the text is cut at the end of the piece; both models still see the same tokens.
"""

import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import folder_signature
from workers.text.callbacks import CheckCancelled, never_cancelled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters of a piece, and of the overlap of two.
PIECE = 1 << 17
OVERLAP = 1 << 11
# Tokens that must agree, in a row, before two pieces are joined.
RUN = 16

# Token ids of shape (T,), and character positions.
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int32]


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a local checkpoint. Runs no code of the checkpoint and asks no hub. A job asks for it several
    times, which takes a fifth of a second each. The same thread gets the one it had while the folder's files are
    unchanged, so no one may change it.

    Raises CHECKPOINT_INCOMPLETE if there is none, CHECKPOINT_UNSUPPORTED if it is not a fast one (character
    offsets are needed).
    """
    try:
        signature = folder_signature(folder)
    except OSError:  # no folder, or none that may be listed: loading says so
        signature = ()
    return _load(folder, signature, threading.get_ident())


# Each takes tens of megabytes where the vocabulary is large, and a worker lives long: no more than a job has use for.
@lru_cache(maxsize=2)
def _load(folder: Path, _signature: tuple[tuple[str, int, int], ...], _thread: int) -> "PreTrainedTokenizerBase":
    # A fast tokenizer is for one thread at a time: each call sets what it pads and truncates to.
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_INCOMPLETE,
            f"The checkpoint {folder.name!r} has no tokenizer that can be loaded ({type(error).__name__}).",
            hint="Put tokenizer.json and tokenizer_config.json beside the weights, or name a tokenizer in models.toml.",
        ) from error
    if not tokenizer.is_fast:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"The tokenizer of {folder.name!r} gives no character offsets.",
            hint="Convert it to a tokenizer.json (a fast tokenizer).",
        )
    return tokenizer


def bos_of(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token that the tokenizer puts before every text, or None.

    Found by encoding with special tokens, since configuration fields (`add_bos_token`, `bos_token`) do not say what a
    tokenizer does: SmolLM2 names a BOS and adds none. What a tokenizer adds behind a text (EOS) is left off, since a
    window is a piece of running text. Raises CHECKPOINT_UNSUPPORTED if more than one token is before.
    """
    plain = encode(tokenizer, "a")
    special = np.asarray(tokenizer("a", add_special_tokens=True, verbose=False)["input_ids"], dtype=np.int32)
    for before in range(len(special) - len(plain) + 1):
        if np.array_equal(special[before : before + len(plain)], plain):
            if before == 0:
                return None
            if before == 1:
                return int(special[0])
            break
    raise HemostatError(
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        "The tokenizer puts more than one special token before a text.",
        hint="Use a tokenizer that adds at most one BOS.",
    )


def encode(
    tokenizer: "PreTrainedTokenizerBase", text: str, *, check_cancelled: CheckCancelled = never_cancelled
) -> Ids:
    """Token ids of `text` without special tokens, int32 of shape (T,)."""
    if len(text) <= PIECE:
        return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)
    return np.concatenate([ids for ids, _ in _pieces(tokenizer, text, check_cancelled)])


def encode_with_offsets(
    tokenizer: "PreTrainedTokenizerBase", text: str, *, check_cancelled: CheckCancelled = never_cancelled
) -> tuple[Ids, Offsets]:
    """Token ids (T,) without special tokens and their character spans (T, 2), end exclusive."""
    pieces = list(_pieces(tokenizer, text, check_cancelled))
    return np.concatenate([ids for ids, _ in pieces]), np.concatenate([offsets for _, offsets in pieces])


def _pieces(
    tokenizer: "PreTrainedTokenizerBase", text: str, check_cancelled: CheckCancelled
) -> Iterator[tuple[Ids, Offsets]]:
    start = 0
    ids, offsets = _piece(tokenizer, text, start)
    while start + PIECE < len(text):
        check_cancelled()
        end = start + PIECE
        following = end - OVERLAP
        next_ids, next_offsets = _piece(tokenizer, text, following)
        low, high = following + OVERLAP // 4, end - OVERLAP // 4
        seam = _seam(ids, offsets[:, 0], next_ids, next_offsets[:, 0], low, high)
        if seam is None:
            yield ids, offsets
            following = end
            ids, offsets = _piece(tokenizer, text, following)
        else:
            here, there = seam
            yield ids[:here], offsets[:here]
            ids, offsets = next_ids[there:], next_offsets[there:]
        start = following
    yield ids, offsets


def _piece(tokenizer: "PreTrainedTokenizerBase", text: str, start: int) -> tuple[Ids, Offsets]:
    encoding = tokenizer(
        text[start : start + PIECE], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    offsets = np.asarray(encoding["offset_mapping"], dtype=np.int32).reshape(-1, 2)
    return np.asarray(encoding["input_ids"], dtype=np.int32), offsets + np.int32(start)


def _seam(
    ids: Ids, starts: Offsets, next_ids: Ids, next_starts: Offsets, low: int, high: int
) -> tuple[int, int] | None:
    """Indices (here, there) from which both pieces agree for `RUN` tokens whose characters lie in [low, high)."""
    first = int(np.searchsorted(starts, low))
    last = int(np.searchsorted(starts, high))
    for here in range(first, last - RUN + 1):
        there = int(np.searchsorted(next_starts, starts[here]))
        # Several tokens may start at one character (bytes of it); only its first one is a seam.
        if here > 0 and starts[here - 1] == starts[here]:
            continue
        if np.array_equal(ids[here : here + RUN], next_ids[there : there + RUN]) and np.array_equal(
            starts[here : here + RUN], next_starts[there : there + RUN]
        ):
            return here, there
    return None
