"""Which request is in which row of the batch, and the calibration version it started with.

vLLM shows changes of its batch before each forward pass. A request may leave the batch and come back (preempted, or not
scheduled for a step): it is the same request then, with the same version, whatever was loaded meanwhile. That is known
by its list of drawn tokens, which the engine keeps from the first to the last step of a request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import torch

    from workers.calibrators.protocol import Calibrator
    from workers.engine.serving.hidden import HiddenFile

# Requests that left are remembered, for they may come back; far more than can be preempted at a time.
REMEMBERED: Final = 2048


class Change(Protocol):
    """vLLM's `BatchUpdate`: to be taken in the order removed, added, moved."""

    removed: Sequence[int]
    added: Sequence[tuple[int, Any, list[int] | None, list[int]]]
    moved: Sequence[tuple[int, int, Any]]


@dataclass(eq=False)
class Row:
    """A request in the batch.

    `prompt` and `output` are the engine's own lists: `output` grows as tokens are drawn. `calibrator` None: nothing is
    corrected. `dead` says why the request has to end now, with token `end`. `pending` is the hidden state of a token
    that may not be drawn: the row of an unfinished prompt is sampled and thrown away. `kept` counts those written.
    """

    params: Any
    prompt: list[int]
    output: list[int]
    request: str = ""
    version: str = "identity"
    calibrator: Calibrator | None = None
    hidden: HiddenFile | None = None
    pending: torch.Tensor | None = None
    kept: int = 0
    prompt_rows: int = 0
    dead: str = ""
    end: int = 0

    @property
    def position(self) -> int:
        """Number of tokens before the one that is predicted."""
        return len(self.prompt) + len(self.output)

    @property
    def token(self) -> int:
        """The last of them."""
        return self.output[-1] if self.output else self.prompt[-1]


@dataclass
class RowMap:
    """The batch, by row. `make` turns a request that was not seen before into a `Row`; `left` learns of one that went.

    A request that comes back is handed to `returned`.
    """

    make: Callable[[Any, list[int], list[int]], Row]
    left: Callable[[Row], None]
    returned: Callable[[Row], None]
    rows: dict[int, Row] = field(default_factory=dict)
    _gone: OrderedDict[int, Row] = field(default_factory=OrderedDict)

    def update(self, change: Change) -> None:
        """Takes a change of the batch."""
        for index in change.removed:
            self._remove(self.rows.pop(index, None))
        for index, params, prompt, output in change.added:
            self._remove(self.rows.pop(index, None))
            self.rows[index] = self._row(params, prompt or [], output)
        for source, target, direction in change.moved:
            one, other = self.rows.pop(source, None), self.rows.pop(target, None)
            if one is not None:
                self.rows[target] = one
            if direction.name == "SWAP":
                if other is not None:
                    self.rows[source] = other
            else:
                self._remove(other)

    def _row(self, params: Any, prompt: list[int], output: list[int]) -> Row:
        known = self._gone.pop(id(output), None)  # a list that is remembered lives, so its id is no one else's
        if known is None:
            return self.make(params, prompt, output)
        known.prompt = prompt
        self.returned(known)
        return known

    def _remove(self, row: Row | None) -> None:
        if row is None:
            return
        self.left(row)
        row.prompt = []  # told again when it returns
        self._gone[id(row.output)] = row
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
