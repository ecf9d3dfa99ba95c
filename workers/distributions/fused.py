"""The compiled graphs that turn a tile of logits into sums over the vocabulary.

A tile is W·h of the reference and the difference to the candidate's product, as they come from the matrix products:
bf16 or float32, no bias, scale or cap yet. Several graphs and not one, for Inductor's sake: fused with a gather or with
sums over a handful of numbers, the loop over the vocabulary gets slow.

Names: C positions of a chunk, P vocabulary padded to whole blocks, B blocks, D hidden size, R refined tokens. Of these
a and b are the logits of reference and candidate, d = a − b. A suffix _C1 is a column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch

from workers.distributions.terms import exp_down, terms

Graph = Callable[..., tuple[torch.Tensor, ...]]

BLOCK = 64
# Columns that are summed before their sums are: longer rows make Inductor keep accumulators in memory.
SEGMENT = 1024
# Every logit that is let through is below LARGEST in magnitude; GONE marks a column that is taken out, and is a bf16.
LARGEST = 1.0e30
GONE = -3.0e38


@dataclass(frozen=True)
class Form:
    """What the graphs depend on beside the shapes of their arguments: what either model does to W·h.

    `gathered`: logits of refined tokens are taken from the tile (which is exact), not computed again. `segments`: into
    how many equal parts a row is cut for its sums. `heads` shows how the two matrices relate.
    """

    scales: tuple[float, float]
    caps: tuple[float | None, float | None]
    biased: bool
    gathered: bool
    segments: int
    heads: Literal["same", "differ", "widths differ"]

    def finish(
        self, a: torch.Tensor, d: torch.Tensor, bias_a: torch.Tensor, bias_d: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(a, a − b) in float32 from the products, in difference form throughout. What is taken out stays out."""
        a, d = a.float(), d.float()
        if not self.biased and self.caps == (None, None) and self.scales == (1.0, 1.0):
            return a, d
        gone = a < -LARGEST
        if self.biased:
            a, d = a + bias_a, d + bias_d
        cap, other_cap = self.caps
        if cap is not None and cap == other_cap:
            # tanh x − tanh y = tanh(x − y)·(1 − tanh x·tanh y)
            tanh_a, tanh_b = torch.tanh(a / cap), torch.tanh((a - d) / cap)
            a, d = cap * tanh_a, cap * torch.tanh(d / cap) * (1 - tanh_a * tanh_b)
        elif cap != other_cap:
            b = _capped(a - d, other_cap)
            a = _capped(a, cap)
            d = a - b
        scale, other_scale = self.scales
        b = a - d
        a, d = scale * a, scale * d
        if scale != other_scale:
            d = d + (scale - other_scale) * b
        return torch.where(gone, GONE, a), torch.where(gone, 0.0, d)

    def block_maxima(
        self, a_CP: torch.Tensor, d_CP: torch.Tensor, bias_a: torch.Tensor, bias_d: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """The largest a and the largest b of every block of `BLOCK` tokens, [C, B] each."""
        a, d = self.finish(a_CP, d_CP, bias_a, bias_d)
        blocks = (a.shape[0], a.shape[1] // BLOCK, BLOCK)
        return a.view(blocks).amax(2), (a - d).view(blocks).amax(2)

    def refine(
        self,
        R_CR: torch.Tensor,
        valid_CR: torch.Tensor,
        next_C: torch.Tensor,
        a_CP: torch.Tensor,
        d_CP: torch.Tensor,
        hidden_CD: torch.Tensor,
        other_CD: torch.Tensor,
        weight_PD: torch.Tensor,
        other_PD: torch.Tensor,
        bias_a: torch.Tensor,
        bias_d: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Logits of the refined tokens and what follows from them alone. `R_CR` rises along a row; `valid_CR` is False
        for repetitions and padding.

        Returns u = a − max a and y = −d − shift with shift = max b − max a, [C, R]. Then max a, shift, Σe^u, Σe^(u+y),
        the logit b of argmax a, a and b of the observed token, [C, 1]. Then counts, int32 [5, C]: common tokens among
        the five and the ten largest, and how many refined tokens exceed each of the three logits. Last argmax a and b,
        int32 [2, C]."""
        if self.gathered:
            a, d = a_CP.gather(1, R_CR), d_CP.gather(1, R_CR)
        else:
            h, k = hidden_CD[:, None], other_CD[:, None]
            W = weight_PD[R_CR].float()
            a = (W * h).sum(2)
            if self.heads == "same":
                d = (W * (h - k)).sum(2)
            elif self.heads == "differ":
                d = (W * (h - k) + (W - other_PD[R_CR].float()) * k).sum(2)
            else:
                d = a - (other_PD[R_CR].float() * k).sum(2)
        biases = (bias_a[R_CR], bias_d[R_CR]) if self.biased else (bias_a, bias_d)
        a, d = self.finish(a, d, *biases)
        b = a - d
        a_in, b_in = torch.where(valid_CR, a, GONE), torch.where(valid_CR, b, GONE)
        max_a, max_b = a_in.amax(1, keepdim=True), b_in.amax(1, keepdim=True)
        # Of equal logits the smaller id, which is first, counts as the larger.
        first_a, first_b = a_in.argmax(1, keepdim=True), b_in.argmax(1, keepdim=True)
        index = torch.arange(R_CR.shape[1], device=R_CR.device)
        before = index[:, None] > index[None, :]

        def place(value: torch.Tensor) -> torch.Tensor:
            mine, theirs = value[:, :, None], value[:, None, :]
            return ((theirs > mine) | ((theirs == mine) & before)).float().sum(2)

        place_a, place_b = place(a_in), place(b_in)
        overlaps = [(valid_CR & (place_a < k) & (place_b < k)).float().sum(1) for k in (5, 10)]
        observed = valid_CR & (next_C[:, None] == R_CR)
        a_x = torch.where(observed, a, 0).sum(1, keepdim=True)
        b_x = torch.where(observed, b, 0).sum(1, keepdim=True)
        b_top = b.gather(1, first_a)
        above = [(value > bar).float().sum(1) for value, bar in ((b_in, b_top), (a_in, a_x), (b_in, b_x))]
        shift = max_b - max_a
        u, y = a_in - max_a, -d - shift
        return (
            u,
            y,
            max_a,
            shift,
            torch.exp(u).sum(1, keepdim=True),
            torch.exp(u + y).sum(1, keepdim=True),
            b_top,
            a_x,
            b_x,
            torch.stack([*overlaps, *above]).to(torch.int32),
            torch.cat([R_CR.gather(1, first_a), R_CR.gather(1, first_b)], dim=1).T.to(torch.int32),
        )

    def _cut(self, rows_CP: torch.Tensor) -> torch.Tensor:
        return rows_CP.view(rows_CP.shape[0] * self.segments, -1)

    def _repeated(self, column_C1: torch.Tensor) -> torch.Tensor:
        """A column for the rows that `_cut` makes."""
        if self.segments == 1:
            return column_C1
        rows = column_C1.shape[0]
        return column_C1[:, None].expand(rows, self.segments, 1).reshape(rows * self.segments, 1)

    def _sums(self, summands: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Sums over each part of each row, [C, segments]: the caller adds the parts."""
        return tuple(summand.sum(1).view(-1, self.segments) for summand in summands)

    def normalise(
        self,
        a_CP: torch.Tensor,
        d_CP: torch.Tensor,
        bias_a: torch.Tensor,
        bias_d: torch.Tensor,
        max_a_C1: torch.Tensor,
        shift_C1: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Σe^(a − max a), Σe^(b − max b) and Σ|b − max b − (a − max a)| over the tile, in parts: [C, segments] each.

        Equal rows do not give equal first two sums: Inductor may put each into a loop, and a vector width, of its own.
        """
        a, d = self.finish(self._cut(a_CP), self._cut(d_CP), bias_a, bias_d)
        u, y = a - self._repeated(max_a_C1), -d - self._repeated(shift_C1)
        return self._sums((exp_down(u), exp_down(u + y), y.abs()))

    def total(
        self,
        a_CP: torch.Tensor,
        d_CP: torch.Tensor,
        bias_a: torch.Tensor,
        bias_d: torch.Tensor,
        max_a_C1: torch.Tensor,
        shift_C1: torch.Tensor,
        log_a_C1: torch.Tensor,
        ratio_C1: torch.Tensor,
        b_top_C1: torch.Tensor,
        a_x_C1: torch.Tensor,
        b_x_C1: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The sums of `terms` over the tile, then how many of its tokens exceed b of argmax a in b, and a and b of the
        observed token. They are in parts, [C, segments] each. ln Σe^(a − max a) and ln Σe^(b − max b) − ln Σe^(a − max
        a) are given."""
        a, d = self.finish(self._cut(a_CP), self._cut(d_CP), bias_a, bias_d)
        b = a - d
        columns = (max_a_C1, shift_C1, log_a_C1, ratio_C1, b_top_C1, a_x_C1, b_x_C1)
        max_a, shift, log_a, ratio, b_top, a_x, b_x = (self._repeated(column) for column in columns)
        above = [(value > bar).float() for value, bar in ((b, b_top), (a, a_x), (b, b_x))]
        return self._sums((*terms(a - max_a - log_a, -d - shift - ratio), *above))

    def refined_terms(
        self, u_CR: torch.Tensor, y_CR: torch.Tensor, log_a_C1: torch.Tensor, ratio_C1: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """`terms` of the refined tokens, stacked to [terms, C, R]."""
        return (torch.stack(terms(u_CR - log_a_C1, y_CR - ratio_C1)),)


def _capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    return logits if cap is None else cap * torch.tanh(logits / cap)


@dataclass(frozen=True)
class Graphs:
    """The methods of a `Form`; what runs over the vocabulary is compiled."""

    block_maxima: Graph
    refine: Graph
    normalise: Graph
    total: Graph
    refined_terms: Graph


@lru_cache(maxsize=64)
def graphs(form: Form, shape: tuple[int, ...], device: str, precision: str) -> Graphs:
    """The compiled graphs for one form, shape of chunk and heads, device and precision; made once a process.

    Compilation happens at the first call of each graph. Inductor keeps its results on disk (TORCHINDUCTOR_CACHE_DIR),
    so that another process takes three seconds where the first took fifteen. The arguments beside `form` are keys only:
    what belongs to one shape must not use up another's recompilations.
    """
    options: dict[str, Any] = {
        "fullgraph": True,
        "dynamic": False,
        "isolate_recompiles": True,
        # Fused multiply-add; and intermediate results stay in registers however many sums need them.
        "options": {
            "cpp.enable_floating_point_contract_flag": "fast",
            "realize_opcount_threshold": 1000,
            "realize_reads_threshold": 64,
        },
    }
    return Graphs(
        torch.compile(form.block_maxima, **options),
        torch.compile(form.refine, **options),
        torch.compile(form.normalise, **options),
        torch.compile(form.total, **options),
        form.refined_terms,  # so little that compiling it would take longer than an hour of it
    )
