"""Which kinds of token the models wrote: the classes of docs/token-classes.md, of generated text.

The text by which a class is judged is a path: the prompts, each once, and what one model wrote behind them by one
decoder. So the classes of the reference's texts depend neither on the candidates nor on the other decoders of a job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from workers.decoding.model import Continuation
from workers.diagnosis.trajectory.prompts import Prompt
from workers.measuring.classify import Classified
from workers.text.token_classes.catalogue import BY_TEXT, RARE
from workers.text.token_classes.frequency import occurrences, rare
from workers.text.token_classes.names import lexicon_of
from workers.text.token_classes.reading import read_continuation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def classify_path(
    prompts: Sequence[Prompt],
    texts: Sequence[Continuation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocabulary: int,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Classified:
    """The classes of every generated token of one model by one decoder, prompt by prompt: masks (T,), T the tokens of
    all `texts`, which stand behind `prompts` in their order. `check_cancelled` may raise."""
    read = []
    for prompt, text in zip(prompts, texts, strict=True):
        check_cancelled()
        read.append(read_continuation(prompt.tokens, text.tokens, tokenizer, turn=prompt.conversation))
    lexicon = lexicon_of(one.text[start:end] for one in read for start, end in one.contents)
    parts: dict[str, list[np.ndarray[tuple[int], np.dtype[np.bool_]]]] = {name: [] for name in BY_TEXT}
    for prompt, one in zip(prompts, read, strict=True):
        check_cancelled()
        known = replace(one, lexicon=lexicon)
        for name, mask in BY_TEXT.items():
            parts[name].append(mask(known)[len(prompt.tokens) :])
    windows = (
        np.asarray([*prompt.tokens, *text.tokens], dtype=np.int32) for prompt, text in zip(prompts, texts, strict=True)
    )
    written = np.asarray([token for text in texts for token in text.tokens], dtype=np.int64)
    counts = occurrences(windows, vocabulary)[written]
    none = np.zeros(0, dtype=np.bool_)
    masks = {name: np.concatenate([none, *found]) for name, found in parts.items()}
    return Classified(masks | {RARE: rare(counts)})
