"""Items as tokens, cut as lm-evaluation-harness cuts them.

A context and its continuation are tokenized together and split where the tokens of the context alone end; spaces at the
end of a context belong to the continuation. What is too long for the model loses its beginning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.contracts.errors import ErrorCode, HemostatError
from app.models.tasks.items import Item
from workers.text.tokenization import Ids, encode
from workers.text.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompts:
    """Token rows that a model reads. `windows[i]` belongs to `item[i]` (and, of multiple choice, to `choice[i]`);
    `shortened` counts the items that lost their beginning, `longest` is in tokens."""

    windows: tuple[Window, ...]
    item: tuple[int, ...]
    choice: tuple[int, ...]
    shortened: int

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(len(window.tokens) for window in self.windows)

    @property
    def fingerprint(self) -> str:
        """SHA-256, hex, of rows and of what is scored of them."""
        digest = hashlib.sha256(b"hemostat.prompts/1")
        for window in self.windows:
            digest.update(np.asarray([len(window.tokens)], dtype="<i8").tobytes())
            digest.update(window.tokens.astype("<i4").tobytes())
            digest.update(np.packbits(window.scored).tobytes())
        return digest.hexdigest()


def encode_pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> tuple[Ids, Ids]:
    """Tokens of both, split after as many as the context alone has. A tokenizer that melts the two into fewer tokens
    than that encodes the continuation by itself."""
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    before = encode(tokenizer, bare)
    whole = encode(tokenizer, bare + continuation)
    if len(whole) <= len(before):
        return before, encode(tokenizer, continuation)
    return whole[: len(before)], whole[len(before) :]


def choice_prompts(
    items: Sequence[Item],
    tokenizer: PreTrainedTokenizerBase,
    bos: int | None,
    limit: int,
    *,
    pointer: str,
    check_cancelled: Callable[[], None],
) -> Prompts:
    """A row for each choice of each item, of which the choice's tokens are scored.

    Raises WINDOW_TOO_LARGE if a choice alone does not fit `limit` tokens.
    """
    windows, owner, chosen, shortened = [], [], [], set()
    for index, item in enumerate(items):
        check_cancelled()
        for number, (context, continuation) in enumerate(item.asked):
            before, after = encode_pair(tokenizer, context, continuation)
            tokens, cut = _fitted(before, after, bos, limit, item=item.id, pointer=pointer)
            if cut:
                shortened.add(index)
            scored = np.zeros(len(tokens) - 1, dtype=np.bool_)
            scored[len(tokens) - 1 - len(after) :] = True
            windows.append(Window(index, 0, tokens, scored))
            owner.append(index)
            chosen.append(number)
    return Prompts(tuple(windows), tuple(owner), tuple(chosen), len(shortened))


def open_prompts(
    items: Sequence[Item],
    tokenizer: PreTrainedTokenizerBase,
    bos: int | None,
    limit: int,
    *,
    pointer: str,
    check_cancelled: Callable[[], None],
) -> Prompts:
    """A row for each item, to be continued within `limit` tokens of prompt."""
    nothing = np.zeros(0, dtype=np.int32)
    windows, shortened = [], 0
    for index, item in enumerate(items):
        check_cancelled()
        tokens, cut = _fitted(encode(tokenizer, item.context), nothing, bos, limit, item=item.id, pointer=pointer)
        shortened += cut
        windows.append(Window(index, 0, tokens, np.zeros(len(tokens) - 1, dtype=np.bool_)))
    return Prompts(tuple(windows), tuple(range(len(items))), (0,) * len(items), shortened)


def _fitted(before: Ids, after: Ids, bos: int | None, limit: int, *, item: str, pointer: str) -> tuple[Ids, bool]:
    """BOS, as much of the end of `before` as fits, and `after`; and whether something was cut off."""
    first = np.asarray([] if bos is None else [bos], dtype=np.int32)
    room = limit - len(first) - len(after)
    if room < 1:
        raise HemostatError(
            ErrorCode.WINDOW_TOO_LARGE,
            f"the answer to item {item!r} takes {len(after)} tokens, and the model's context leaves {limit}",
            hint="remove the item, or ask for fewer answer tokens",
            pointer=pointer,
        )
    return np.concatenate([first, before[-room:], after]).astype(np.int32), len(before) > room
