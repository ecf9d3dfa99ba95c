"""What happens to a batch between vLLM's forward pass and its sampler.

Each step of model runner V1 calls, in this order: `update` (its batch as it will run), `forward` of the model, and
`compute_logits` with one row per request, in the order of the batch. Then `force`, before it draws. Then
`compute_logits` again for each request that wants log-probabilities of its prompt, with many rows of that one request.
Dummy runs (profiling, warming up) call `forward` and `compute_logits` outside of such a step: nothing is done to them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import torch

from app.contracts.deployment import IDENTITY, NOT_FINITE
from workers.calibrators.blocks import blocks_of
from workers.calibrators.protocol import RowContext
from workers.engine.blocks import Slots
from workers.engine.serving.corrections import Group, Head, broken_rows, correct, group
from workers.engine.serving.counters import Counters
from workers.engine.serving.hidden import HiddenFolder
from workers.engine.serving.nonfinite import EndedRequests
from workers.engine.serving.rows import Change, Row, RowMap
from workers.engine.serving.versions import Versions

REQUEST: Final = "hemostat_request"
VERSION: Final = "hemostat_version"
KEEP_HIDDEN: Final = "hemostat_keep_hidden"

NOT_LOADED: Final = "its calibration version is not loaded"
NO_SLOT: Final = "too many other versions correct blocks at this moment"
# In log-probabilities a forced row shows every other token at this; −inf is no JSON.
_NEVER: Final = -1e4


class Phase(Enum):
    """Where in a step the runner is."""

    OUTSIDE = auto()
    STARTED = auto()
    DRAWING = auto()


@dataclass(frozen=True)
class Pass:
    """A forward pass: what went in, and where its hidden states lie. `starts` are the rows' first tokens."""

    tokens_T: torch.Tensor
    positions_T: torch.Tensor
    starts: Callable[[], list[int]]
    hidden_TD: torch.Tensor


class Batch:
    """The hooks of one engine. `end_token` is drawn where a request has to end and brings no end token of its own.

    `tainted`: blocks of the key-value cache may hold what is not finite. `slots` are the corrections within the layers;
    None if the model's layers cannot be corrected. `on_all_ranks` says whether every process that holds a
    part of the model says yes. One alone must not end a row: the others would go on with another token.
    """

    def __init__(
        self,
        *,
        versions: Versions,
        ended: EndedRequests,
        counters: Counters,
        hidden: HiddenFolder | None,
        end_token: int,
        device: torch.device,
        on_all_ranks: Callable[[bool], bool] = bool,
    ) -> None:
        self.map = RowMap(self._make, self._left, self._returned)
        self._versions = versions
        self._ended = ended
        self._counters = counters
        self._hidden = hidden
        self._end_token = end_token
        self._device = device
        self._on_all_ranks = on_all_ranks
        self.tainted = False
        self.slots: Slots | None = None
        self._phase = Phase.OUTSIDE
        self._pass: Pass | None = None
        self._order: list[Row] = []
        self._groups: list[Group] = []
        self._slot_of: list[int] = []  # of each row
        self._keepers: list[tuple[int, Row]] = []

    def update(self, change: Change | None) -> None:
        """A step begins."""
        for _, row in self._keepers:
            keep_drawn(row)
        if change is not None:
            self.map.update(change)
            rows = self.map.rows
            self._order = [rows[index] for index in range(len(rows))]
            self._groups = group([row.calibrator for row in self._order], self._device)
            self._slot_of = self._placed()
            self._keepers = [(index, row) for index, row in enumerate(self._order) if row.hidden is not None]
            if self._hidden is not None:
                self._hidden.sweep()
        self._mark(self._slot_of)  # one token per row, as in a pass that is replayed from a graph
        self._phase = Phase.STARTED
        self._pass = None

    def entering(self, starts: Callable[[], list[int]]) -> None:
        """The model is about to run; `starts` are the rows' first tokens."""
        if self._phase is not Phase.STARTED:
            self._mark([])
        elif any(self._slot_of):
            first = starts()
            self._mark([slot for row, slot in enumerate(self._slot_of) for _ in range(first[row], first[row + 1])])

    def corrects_blocks(self, version: str) -> bool:
        """Whether a version that is not identity changes keys and values."""
        calibrator = self._versions.find(version)
        return calibrator is not None and bool(blocks_of(calibrator))

    @property
    def ends(self) -> dict[int, int]:
        """The rows of requests that have to end, and the token that each ends with."""
        return {index: row.end for index, row in enumerate(self._order) if row.dead}

    def passed(self, made: Callable[[], Pass]) -> None:
        """The model has run."""
        if self._phase is Phase.STARTED:
            self._pass = made()
        else:
            self._phase = Phase.OUTSIDE

    def compute_logits(self, hidden_TD: torch.Tensor, head: Head) -> torch.Tensor:
        """Logits of the rows, corrected where their request wants it."""
        rows = hidden_TD.shape[0]
        if self._phase is Phase.STARTED and rows == len(self._order) > 0:
            self._phase = Phase.DRAWING
            return self._drawing(hidden_TD, head)
        if self._phase is Phase.DRAWING:
            return self._of_prompt(hidden_TD, head)
        return head(hidden_TD)

    def force(self, logits_TV: torch.Tensor) -> torch.Tensor:
        """Leaves nothing but the end to requests that have to end, whatever was masked or demanded before."""
        for index, row in enumerate(self._order):
            if row.dead:
                logits_TV[index] = float("-inf")
                logits_TV[index, row.end] = 0.0
        return logits_TV

    def _drawing(self, hidden_TD: torch.Tensor, head: Head) -> torch.Tensor:
        for index, row in self._keepers:
            row.pending = hidden_TD[index].detach().to("cpu", copy=True)
        contexts = [self._context(one) for one in self._groups]
        logits_TV = correct(hidden_TD, self._groups, contexts, head)
        corrected = sum(len(one.indices) for one in self._groups)
        if corrected:
            self._counters.calibrated.inc(corrected)
        if corrected < len(self._order):
            self._counters.plain.inc(len(self._order) - corrected)
        for index in broken_rows(logits_TV):
            self._end(self._order[index], NOT_FINITE)
        for index, row in enumerate(self._order):
            if row.dead:
                _neutralize(logits_TV[index], row.end)
        return logits_TV

    def _of_prompt(self, hidden_TD: torch.Tensor, head: Head) -> torch.Tensor:
        row, context = self._prompt_rows(hidden_TD)
        row.prompt_rows += hidden_TD.shape[0]
        groups = [] if row.calibrator is None else [Group(row.calibrator, (), None)]
        logits_TV = correct(hidden_TD, groups, [context] * len(groups), head)
        broken = broken_rows(logits_TV)
        if broken:
            self._end(row, NOT_FINITE)
            for index in broken:
                _neutralize(logits_TV[index], row.end)
        return logits_TV

    def _prompt_rows(self, hidden_TD: torch.Tensor) -> tuple[Row, RowContext]:
        """Whose prompt this is, and where in it: the rows are a stretch of the pass' hidden states."""
        count, width = hidden_TD.shape
        if self._pass is None:
            # The pass was replayed from a graph: one token for each request, so tokens lie as requests stand.
            row = self._order[hidden_TD.storage_offset() // width]
            known = torch.arange(row.prompt_rows, row.prompt_rows + count, device=hidden_TD.device)
            tokens_T = torch.tensor(row.prompt, device=hidden_TD.device)[known]
            return row, RowContext(known + 1, tokens_T)
        whole = self._pass.hidden_TD
        start = (hidden_TD.data_ptr() - whole.data_ptr()) // (width * hidden_TD.element_size())
        if not 0 <= start <= whole.shape[0] - count:
            raise RuntimeError("rows for prompt log-probabilities are not of the last forward pass")
        row = self._order[bisect_right(self._pass.starts(), start, hi=len(self._order)) - 1]
        part = slice(start, start + count)
        return row, RowContext(self._pass.positions_T[part].long() + 1, self._pass.tokens_T[part].long())

    def _placed(self) -> list[int]:
        """The slot of each row's corrections within the layers."""
        if self.slots is None:
            return [0] * len(self._order)
        wanted = [next(iter(blocks_of(row.calibrator)), None) if row.calibrator else None for row in self._order]
        slots = self.slots.place(wanted)
        for row, blocks, slot in zip(self._order, wanted, slots, strict=True):
            if blocks is not None and not slot:
                self._end(row, NO_SLOT)
        return slots

    def _mark(self, slots: list[int]) -> None:
        if self.slots is not None:
            self.slots.mark(slots)

    def _context(self, one: Group) -> RowContext:
        rows = [self._order[index] for index in one.indices]
        told = torch.tensor([[row.position for row in rows], [row.token for row in rows]], dtype=torch.int64)
        told = told.to(self._device)
        return RowContext(told[0], told[1])

    def _make(self, params: Any, prompt: list[int], output: list[int]) -> Row:
        extra = params.extra_args or {}
        row = Row(params, prompt, output, str(extra.get(REQUEST, "")), str(extra.get(VERSION, IDENTITY)))
        if row.version != IDENTITY:
            found = self._versions.find(row.version)
            if self._on_all_ranks(found is not None):
                row.calibrator = found
            else:
                self._end(row, NOT_LOADED)
        if self._hidden is not None and extra.get(KEEP_HIDDEN) and row.request:
            row.hidden = self._hidden.open(row.request)
        return row

    def _left(self, row: Row) -> None:
        if row.hidden is not None:
            keep_drawn(row)
            row.hidden.finish()

    def _returned(self, row: Row) -> None:
        row.prompt_rows = 0
        if row.hidden is not None:
            row.hidden.resume()

    def _end(self, row: Row, why: str) -> None:
        """The request ends with its next token, which `engines.hand_on_ends` has the scheduler take for an end."""
        if row.dead:
            return
        own: int | None = row.params._eos_token_id
        row.dead, row.end = why, self._end_token if own is None else own
        self._ended.add(row.request, why)
        if why == NOT_FINITE:
            self.tainted = True
            self._counters.nonfinite.inc()


def _neutralize(logits_V: torch.Tensor, end: int) -> None:
    logits_V.fill_(_NEVER)
    logits_V[end] = 0.0


def keep_drawn(row: Row) -> None:
    """Writes the hidden state of the last step if its token was drawn, not thrown away."""
    pending, row.pending = row.pending, None
    if pending is not None and row.hidden is not None and len(row.output) > row.kept:
        row.hidden.append(pending)
        row.kept = len(row.output)
