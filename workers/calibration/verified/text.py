"""From tokens to text as they come: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

LONGEST_STOP: Final = 256


class TextStream:
    """The text of one answer. `stops` end it and are not part of it; special tokens are not shown."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stops = tuple(stops)
        self._held = max((len(stop) for stop in stops), default=1) - 1
        self._pending = ""
        self.stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """What can be shown now that these tokens are there; "" once it has stopped."""
        if self.stopped:
            return ""
        for token in tokens:
            self._pending += self._decoder.step(self._tokenizer, token) or ""
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
