"""Every generated text, scored by the models that need it: what the KL along a path is computed from.

A text that several decoders or models wrote is scored once. Of a text only what was generated counts, the token that
ended it included.

Names: T positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workers.diagnosis.trajectory.prompts import Prompt
from workers.text.windows import Corpus, DocumentInfo, Window

_FORMAT = b"hemostat.trajectory/1"
PROTOCOL = (
    "each generated text behind its prompt, by either model; scored is every generated token, the token that ended a "
    "text included; the same text is scored once"
)


@dataclass
class TextPool:
    """Texts by what they are: (prompt, tokens). `add` gives a text's number; numbers rise from 0."""

    prompts: Sequence[Prompt]
    texts: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    _numbers: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)

    def add(self, prompt: int, tokens: Sequence[int]) -> int:
        """The number of this text, a new one where it was not there. ValueError for a text without a token."""
        key = (prompt, tuple(tokens))
        if not key[1]:
            raise ValueError(f"prompt {prompt} has a text without a token")
        if key not in self._numbers:
            self._numbers[key] = len(self.texts)
            self.texts.append(key)
        return self._numbers[key]

    def window(self, number: int) -> Window:
        """Prompt and text as the models read them; what was generated is scored."""
        prompt, tokens = self.texts[number]
        head = self.prompts[prompt].tokens
        scored = np.zeros(len(head) + len(tokens) - 1, dtype=np.bool_)
        scored[len(head) - 1 :] = True
        return Window(prompt, 0, np.asarray([*head, *tokens], dtype=np.int32), scored)

    def corpus(self, numbers: Sequence[int], length: int, *, bos: bool) -> Corpus:
        """Some texts as a corpus of windows of at most `length` tokens; a document is a prompt."""
        windows = [self.window(number) for number in numbers]
        digest = hashlib.sha256(_FORMAT)
        for window in windows:
            digest.update(np.asarray([window.document, len(window.tokens)], dtype="<i8").tobytes())
            digest.update(window.tokens.astype("<i4").tobytes())
            digest.update(np.packbits(window.scored).tobytes())
        scored = [0] * len(self.prompts)
        for window in windows:
            scored[window.document] += int(window.scored.sum())
        return Corpus(
            windows=windows,
            documents=tuple(
                DocumentInfo(prompt.document, prompt.domain, len(prompt.tokens), count)
                for prompt, count in zip(self.prompts, scored, strict=True)
            ),
            window=length,
            stride=length,
            bos=bos,
            chat_template=any(prompt.conversation for prompt in self.prompts),
            tokens=sum(len(window.tokens) for window in windows),
            scored=sum(scored),
            left_out_tokens=0,
            left_out_windows=0,
            fingerprint=digest.hexdigest(),
            protocol=PROTOCOL,
            conversations=sum(prompt.conversation for prompt in self.prompts),
        )


def spans(corpus: Corpus) -> list[slice]:
    """Where the scored positions of each window stand among those of the whole corpus."""
    ends: NDArray[np.int64] = np.cumsum([int(window.scored.sum()) for window in corpus.windows])
    starts = [0, *ends[:-1].tolist()]
    return [slice(start, int(end)) for start, end in zip(starts, ends, strict=True)]
