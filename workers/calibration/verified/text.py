"""From tokens to text as they come: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

LONGEST_STOP: Final = 256


# Of the prompt: how the first token is written depends on what is before it.
_BEFORE: Final = 8


class TextStream:
    """The text of one answer. `stops` end it and are not part of it; special tokens are not shown.

    `prompt` is what the answer follows. `stopped` says that a stop string was found, `used` how many of the tokens that
    were added last it took to complete it (else all of them).
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = self._fresh(prompt[-_BEFORE:])
        self._stops = tuple(stops)
        self._held = max((len(stop) for stop in stops), default=1) - 1
        self._pending = ""
        self.stopped = False
        self.used = 0

    def add(self, tokens: Sequence[int]) -> str:
        """What can be shown now that these tokens are there; "" once it has stopped."""
        self.used = 0
        for token in tokens:
            if self.stopped:
                return ""
            self.used += 1
            self._pending += self._step(token)
            found = [at for at in (self._pending.find(stop) for stop in self._stops) if at >= 0]
            if found:
                self.stopped = True
                shown, self._pending = self._pending[: min(found)], ""
                return shown
        cut = max(0, len(self._pending) - self._held)
        shown, self._pending = self._pending[:cut], self._pending[cut:]
        return shown

    def end(self) -> str:
        """What was held back in case a stop string began there."""
        shown, self._pending = self._pending, ""
        return shown

    def _step(self, token: int) -> str:
        if self._tokenizer.id_to_token(token) is None:
            return ""  # padding of the model's vocabulary, which is no text
        try:
            return self._decoder.step(self._tokenizer, token) or ""
        except Exception as error:
            if "prefix" not in str(error).lower():  # it raises nothing narrower
                raise
        # Bytes that are no text can undo what the decoder has taken for settled; it goes on from here.
        self._decoder = self._fresh(())
        return self._decoder.step(self._tokenizer, token) or ""

    @staticmethod
    def _fresh(tokens: Sequence[int]) -> Any:
        from tokenizers.decoders import DecodeStream

        return DecodeStream(ids=list(tokens), skip_special_tokens=True)
