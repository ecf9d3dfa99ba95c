"""Divergences of two next-token distributions from the hidden states of both models, over the full vocabulary.

p is the reference's distribution and q the candidate's, a and b their logits. What matters is b − a, and two rows of
logits that were each rounded to bf16 differ by more rounding than an 8-bit quantization causes: the mean KL of such a
model comes out 17 % too large. So the second product is not b but the *difference*, W·(h_ref − h_cand), whose rounding
is relative to itself; heads that differ add (W_ref − W_cand)·h_cand. A soft cap, scales and biases are carried through in
difference form too: tanh x − tanh y = tanh(x − y)·(1 − tanh x·tanh y).

With r = ln(q/p), x = |r|, g = max(p, q), E = e^−x and w = 1 − E, each token of the vocabulary adds

    KL(p‖q)   g·A where q ≤ p, else g·B     A = x − w          TV   g·w / 2
    KL(q‖p)   g·B where q ≤ p, else g·A     B = w − x·E        JS   g·J,  2J = (1 + E)·ln(2 / (1 + E)) − x·E

None of these is negative for any x and each is computed without cancellation (polynomials below x = ½), so that a KL of
1e-9 nats does not drown in the rounding of a log-sum-exp, no result is negative, and equal inputs give exactly 0. That
Σp = Σq = 1 turns the sums into the usual definitions.

The few tokens that carry most of the mass are the ones where a rounded logit would hurt: for the twelve largest of
either row, and for the observed token, both logits are computed again in float32 ("refined") and taken out of the
rounded tile. They come from the twelve blocks of 64 tokens with the largest maxima, which contain the twelve largest
tokens. Ranks, top-1 and overlaps follow from refined values against each other, from rounded ones against the rest.

Positions go through in chunks of fixed size, the last one padded: one compiled graph, memory that does not grow with T.

Names: T positions, C positions of a chunk, D hidden size, V vocabulary (P: padded to whole blocks), R refined tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial

from app.contracts.errors import ErrorCode, HemostatError
from workers.distributions.head import Head
from workers.distributions.token_values import TokenValues

Precision = Literal["fast", "float32"]
Kernel = Callable[..., tuple[torch.Tensor, ...]]

BLOCK = 64
# Refined tokens of either row. More than the ten of the overlaps: rounding may misplace the tenth. Up to a 64th of the
# number of blocks, torch.topk sorts partially and costs a third.
REFINED = 12
CHUNK = {"cpu": 128, "cuda": 512}

# Below every logit that is let through (`_LARGEST`), and a number in bf16.
_GONE = -3.0e38
_LARGEST = 1.0e30
_SPLIT = 0.5  # x below which A, B and J are polynomials


def _fit(function: Callable[[np.ndarray], np.ndarray], degree: int, high: float) -> tuple[float, ...]:
    """Coefficients, constant first, of the interpolation of a smooth function in Chebyshev points of [0, high]."""
    fitted: Polynomial = Chebyshev.interpolate(function, degree, domain=[0.0, high]).convert(kind=Polynomial)
    return tuple(float(c) for c in fitted.coef)


def _j(x: np.ndarray) -> np.ndarray:
    e = np.exp(-x)
    value: np.ndarray = 0.5 * ((1 + e) * (math.log(2) - np.log1p(e)) - e * x)
    return value


# Relative errors below 5e-8, under float32's own; the points nearest 0 are far enough off for float64.
_A = _fit(lambda x: (x + np.expm1(-x)) / x**2, 4, _SPLIT)
_J = _fit(lambda x: _j(x) / x**2, 4, _SPLIT)
_Q = _fit(lambda e: (1 + e) * (math.log(2) - np.log1p(e)), 6, math.exp(-_SPLIT))


def _polynomial(coefficients: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


@dataclass(frozen=True)
class _Form:
    """What a compiled graph depends on beside the shapes of its arguments."""

    scales: tuple[float, float]
    caps: tuple[float | None, float | None]
    biased: bool
    gathered: bool  # refined logits are taken from the tile and not computed again
    heads: Literal["same", "differ", "widths differ"]

    def finish(
        self, a: torch.Tensor, d: torch.Tensor, bias_a: torch.Tensor, bias_d: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(a, a − b) in float32 from W·h of the reference and its difference to the candidate's. What was taken out of
        the tile stays out."""
        a, d = a.float(), d.float()
        if not self.biased and self.caps == (None, None) and self.scales == (1.0, 1.0):
            return a, d
        gone = a < -_LARGEST
        if self.biased:
            a, d = a + bias_a, d + bias_d
        cap, cap_b = self.caps
        if cap is not None and cap == cap_b:
            tanh_a, tanh_b = torch.tanh(a / cap), torch.tanh((a - d) / cap)
            a, d = cap * tanh_a, cap * torch.tanh(d / cap) * (1 - tanh_a * tanh_b)
        elif cap != cap_b:
            b = a - d
            a = a if cap is None else cap * torch.tanh(a / cap)
            d = a - (b if cap_b is None else cap_b * torch.tanh(b / cap_b))
        scale, scale_b = self.scales
        if scale == scale_b:
            a, d = scale * a, scale * d
        else:
            a, d = scale * a, scale * d + (scale - scale_b) * (a - d)
        return torch.where(gone, _GONE, a), d


def _terms(lp: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What each token adds to KL, reverse KL, JS, TV and the two entropies, from ln p and r = ln(q/p)."""
    x = r.abs()
    E = torch.exp(-x)
    lq = lp + r
    up = r > 0
    g = torch.exp(torch.maximum(lp, lq))
    small = x < _SPLIT
    near = x * x
    A = near * _polynomial(_A, x)
    w = torch.where(small, x - A, 1 - E)
    A = torch.where(small, A, x - w)
    B = torch.where(small, x * w - A, w - x * E)
    J = torch.where(small, near * _polynomial(_J, x), 0.5 * (_polynomial(_Q, E) - x * E))
    lesser = g * E
    return (
        g * torch.where(up, B, A),
        g * torch.where(up, A, B),
        g * J,
        0.5 * g * w,
        -torch.where(up, lesser, g) * lp,
        -torch.where(up, g, lesser) * lq,
    )


@lru_cache(maxsize=64)
def _kernels(form: _Form, shape: tuple[int, ...], device: str) -> tuple[Kernel, Kernel, Kernel]:
    """The three compiled graphs of a form and shape: block maxima, refined logits, everything that is summed.

    Made once a process for each (`shape` and `device` are keys only); across processes Inductor's cache on disk makes a
    second compilation a matter of a second.
    """

    def block_maxima(a_CP: torch.Tensor, d_CP: torch.Tensor, *biases: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, d = form.finish(a_CP, d_CP, *biases)
        rows, width = a.shape
        blocks = (rows, width // BLOCK, BLOCK)
        return a.view(blocks).amax(2), (a - d).view(blocks).amax(2)

    def refine(
        R_CR: torch.Tensor,
        a_CP: torch.Tensor,
        d_CP: torch.Tensor,
        hidden_CD: torch.Tensor,
        other_CD: torch.Tensor,
        weight_PD: torch.Tensor,
        other_PD: torch.Tensor,
        bias_a: torch.Tensor,
        bias_d: torch.Tensor,
        next_C: torch.Tensor,
        valid_CR: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        if form.gathered:
            a, d = a_CP.gather(1, R_CR), d_CP.gather(1, R_CR)
        else:
            h, k = hidden_CD.float()[:, None], other_CD.float()[:, None]
            W = weight_PD[R_CR].float()
            a = (W * h).sum(2)
            if form.heads == "same":
                d = (W * (h - k)).sum(2)
            elif form.heads == "differ":
                d = (W * (h - k) + (W - other_PD[R_CR].float()) * k).sum(2)
            else:
                d = a - (other_PD[R_CR].float() * k).sum(2)
        biases = (bias_a[R_CR], bias_d[R_CR]) if form.biased else (bias_a, bias_d)
        a, d = form.finish(a, d, *biases)
        b = a - d
        a_in, b_in = torch.where(valid_CR, a, _GONE), torch.where(valid_CR, b, _GONE)
        max_a, max_b = a_in.amax(1, keepdim=True), b_in.amax(1, keepdim=True)
        observed = valid_CR & (R_CR == next_C[:, None])
        a_x = torch.where(observed, a, 0).sum(1, keepdim=True)
        b_x = torch.where(observed, b, 0).sum(1, keepdim=True)
        first_a, first_b = a_in.argmax(1, keepdim=True), b_in.argmax(1, keepdim=True)
        top_a, top_b = R_CR.gather(1, first_a)[:, 0], R_CR.gather(1, first_b)[:, 0]
        b_top = b.gather(1, first_a)
        # Places among the refined; of equal ones the smaller id, which stands first, is better.
        index = torch.arange(R_CR.shape[1], device=R_CR.device)
        before = index[:, None] > index[None, :]

        def place(value: torch.Tensor) -> torch.Tensor:
            mine, theirs = value[:, :, None], value[:, None, :]
            return ((theirs > mine) | ((theirs == mine) & before)).float().sum(2)

        place_a, place_b = place(a_in), place(b_in)
        overlaps = tuple((valid_CR & (place_a < k) & (place_b < k)).float().sum(1) for k in (5, 10))
        ranks = tuple((v > w).float().sum(1) for v, w in ((b_in, b_top), (a_in, a_x), (b_in, b_x)))
        counts = torch.stack((*overlaps, *ranks)).to(torch.int32)
        tops = torch.stack((top_a, top_b)).to(torch.int32)
        u, y = a_in - max_a, -d - (max_b - max_a)
        sum_a, sum_b = torch.exp(u).sum(1, keepdim=True), torch.exp(u + y).sum(1, keepdim=True)
        return u, y, max_a, max_b, sum_a, sum_b, b_top, a_x, b_x, counts, tops

    def reduce(
        a_CP: torch.Tensor,
        d_CP: torch.Tensor,
        bias_a: torch.Tensor,
        bias_d: torch.Tensor,
        u_in: torch.Tensor,
        y_in: torch.Tensor,
        max_a: torch.Tensor,
        max_b: torch.Tensor,
        sum_a: torch.Tensor,
        sum_b: torch.Tensor,
        b_top: torch.Tensor,
        a_x: torch.Tensor,
        b_x: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        shift = max_b - max_a
        a, d = form.finish(a_CP, d_CP, bias_a, bias_d)
        u, y = a - max_a, -d - shift
        sum_a = torch.exp(u).sum(1, keepdim=True) + sum_a
        sum_b = torch.exp(u + y).sum(1, keepdim=True) + sum_b
        # ln Σe^b − ln Σe^a beyond the shift; exactly 0 for equal rows, whose two sums are the same additions.
        ratio = torch.log1p((sum_b - sum_a) / sum_a)
        log_a = torch.log(sum_a)
        rest = torch.stack([term.sum(1) for term in _terms(u - log_a, y - ratio)])
        # Summed by the caller: sums over a few numbers compile badly.
        refined = torch.stack(_terms(u_in - log_a, y_in - ratio))
        others = (
            (a_x - max_a - log_a)[:, 0],
            (b_x - max_b - (log_a + ratio))[:, 0],
            torch.exp(-log_a)[:, 0],
        )
        # A float counts exactly to 2^24, more than any vocabulary, and is summed with the others in one loop.
        b = a - d
        above = tuple((v > w).float().sum(1) for v, w in ((b, b_top), (a, a_x), (b, b_x)))
        return rest, refined, torch.stack(others), torch.stack(above).to(torch.int32)

    def compiled(function: Kernel) -> Kernel:
        made: Kernel = torch.compile(function, fullgraph=True, dynamic=False, isolate_recompiles=True)
        return made

    return compiled(block_maxima), compiled(refine), compiled(reduce)


_VALUES = (
    "kl",
    "reverse_kl",
    "js",
    "tv",
    "entropy_reference",
    "entropy_candidate",
    "logp_reference",
    "logp_candidate",
    "top_probability_reference",
)
_COUNTS = (
    "overlap5",
    "overlap10",
    "rank_of_reference_top",
    "rank_token_reference",
    "rank_token_candidate",
    "top_reference",
    "top_candidate",
)


class Divergence:
    """Token values of reference and candidate from their hidden states.

    `precision` "fast": products in bf16 with float32 accumulation, in difference form; the means are within 2e-3
    (relative) of float64 on the same hidden states. "float32": all in float32, within 1e-4; several times slower.

    Holds the heads on `device` and buffers for one chunk: 2·C·V numbers of bf16 (float32: twice that, and a float32 copy
    of the head). Not for use by several threads at once.

    Raises `HemostatError(VOCABULARY_MISMATCH)` where the vocabularies differ in size.
    """

    def __init__(
        self, reference: Head, candidate: Head, *, precision: Precision = "fast", device: str | torch.device = "cpu"
    ) -> None:
        if reference.vocabulary != candidate.vocabulary:
            raise HemostatError(
                ErrorCode.VOCABULARY_MISMATCH,
                f"the reference's head has {reference.vocabulary} tokens, the candidate's {candidate.vocabulary}",
                hint="compare models of one vocabulary",
            )
        if precision not in ("fast", "float32"):
            raise ValueError(f"precision is {precision!r}, fast or float32 is needed")
        self.reference = reference
        self.candidate = candidate
        self.precision = precision
        self.device = torch.device(device)
        self.chunk = CHUNK.get(self.device.type, CHUNK["cpu"])
        same = reference is candidate or (
            reference.weight_VD.shape == candidate.weight_VD.shape
            and torch.equal(reference.weight_VD, candidate.weight_VD)
        )
        widths = (reference.hidden_size, candidate.hidden_size)
        biased = reference.bias_V is not None or candidate.bias_V is not None
        self._form = _Form(
            scales=(reference.scale, candidate.scale),
            caps=(reference.softcap, candidate.softcap),
            biased=biased,
            gathered=precision == "float32",
            heads="same" if same else "differ" if widths[0] == widths[1] else "widths differ",
        )
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        self._weight = self._placed(reference.weight_VD, dtype)
        self._other = self._weight if same else self._placed(candidate.weight_VD, dtype)
        self._difference: torch.Tensor | None = None
        if self._form.heads == "differ":
            change = (reference.weight_VD.float() - candidate.weight_VD.float()).to(dtype)
            self._difference = torch.cat([self._weight, self._placed(change, dtype)], dim=1)
        elif self._form.heads == "widths differ":
            self._difference = torch.cat([self._weight, -self._other], dim=1)
        padded = self._weight.shape[0]
        zero_P = torch.zeros(padded if biased else 1, device=self.device)
        self._bias_a = self._bias(reference.bias_V, zero_P)
        self._bias_d = self._bias_a - self._bias(candidate.bias_V, zero_P)
        self._tile = torch.zeros(2 * self.chunk, padded, dtype=dtype, device=self.device)
        self._row = torch.arange(self.chunk, device=self.device)[:, None]
        shape = (self.chunk, padded, *widths)
        self._block_maxima, self._refine, self._reduce = _kernels(self._form, shape, str(self.device))

    def _placed(self, weight_VD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The matrix on the device, with rows of zeros up to whole blocks."""
        missing = -weight_VD.shape[0] % BLOCK
        placed = weight_VD.to(device=self.device, dtype=dtype)
        return torch.nn.functional.pad(placed, (0, 0, 0, missing)) if missing else placed.contiguous()

    def _bias(self, bias_V: torch.Tensor | None, zero_P: torch.Tensor) -> torch.Tensor:
        if bias_V is None:
            return zero_P
        return torch.nn.functional.pad(bias_V.to(self.device), (0, zero_P.shape[0] - bias_V.shape[0]))

    def __call__(
        self,
        reference_TD: torch.Tensor,
        candidate_TD: torch.Tensor,
        next_T: torch.Tensor | np.ndarray,
        *,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> TokenValues:
        """The values of T positions: row t of each hidden state predicts token `next_T[t]`.

        Rows may come from several windows; short ones are better joined, since the last chunk is padded to its full
        size. `check_cancelled` is called before each chunk. A position with a hidden state that is not finite, or whose
        logits would overflow, has `finite` False and NaN in its values; it does not touch others.

        ValueError for shapes that do not fit, for token ids outside the vocabulary, and, in fast precision, for hidden
        states that are not bf16.
        """
        tokens_T = torch.as_tensor(next_T).to(torch.int64)
        self._check(reference_TD, candidate_TD, tokens_T)
        parts = []
        # Others in the process may have allowed less than float32 for what is called float32.
        allowed = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.inference_mode():
                for start in range(0, tokens_T.shape[0], self.chunk):
                    check_cancelled()
                    rows = slice(start, start + self.chunk)
                    parts.append(self._chunk(reference_TD[rows], candidate_TD[rows], tokens_T[rows]))
        finally:
            torch.set_float32_matmul_precision(allowed)
        return TokenValues.concat(parts)

    def warm_up(self) -> None:
        """Compile now (5–20 s, or one where the cache on disk has it) and not in the first call."""
        zeros = [torch.zeros(1, head.hidden_size, dtype=torch.bfloat16) for head in (self.reference, self.candidate)]
        self(*zeros, torch.zeros(1, dtype=torch.int64))

    def _check(self, reference_TD: torch.Tensor, candidate_TD: torch.Tensor, tokens_T: torch.Tensor) -> None:
        if tokens_T.ndim != 1:
            raise ValueError(f"token ids of shape {tuple(tokens_T.shape)}, one dimension is needed")
        for name, hidden_TD, head in (
            ("reference", reference_TD, self.reference),
            ("candidate", candidate_TD, self.candidate),
        ):
            expected = (tokens_T.shape[0], head.hidden_size)
            if tuple(hidden_TD.shape) != expected:
                raise ValueError(f"{name}: hidden states of shape {tuple(hidden_TD.shape)}, {expected} is needed")
            if self.precision == "fast" and hidden_TD.dtype != torch.bfloat16:
                raise ValueError(f"{name}: hidden states are {hidden_TD.dtype}, bf16 is needed in fast precision")
        if tokens_T.numel() and not 0 <= int(tokens_T.min()) <= int(tokens_T.max()) < self.reference.vocabulary:
            raise ValueError(f"token ids reach outside the vocabulary of {self.reference.vocabulary}")

    def _rows(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        """A chunk's hidden states on the device, in the products' dtype, padded to the chunk."""
        placed = hidden_TD.to(device=self.device, dtype=self._tile.dtype)
        return torch.nn.functional.pad(placed, (0, 0, 0, self.chunk - placed.shape[0]))

    def _chunk(self, reference_TD: torch.Tensor, candidate_TD: torch.Tensor, tokens_T: torch.Tensor) -> TokenValues:
        count = tokens_T.shape[0]
        h, k = self._rows(reference_TD), self._rows(candidate_TD)
        finite_C = self._bounded(h, self.reference) & self._bounded(k, self.candidate)
        # Not needed for the other rows, which a product does not mix; but nothing after this has to think of NaN.
        h, k = h.masked_fill(~finite_C[:, None], 0), k.masked_fill(~finite_C[:, None], 0)
        next_C = torch.nn.functional.pad(tokens_T.to(self.device), (0, self.chunk - count))
        a_CP, d_CP = self._products(h, k)
        biases = (self._bias_a, self._bias_d)
        R_CR = self._largest(a_CP, d_CP, next_C)
        valid_CR = torch.nn.functional.pad(R_CR[:, 1:] != R_CR[:, :-1], (1, 0), value=True)
        valid_CR &= self.reference.vocabulary > R_CR
        *refined, counts, tops = self._refine(
            R_CR, a_CP, d_CP, h, k, self._weight, self._other, *biases, next_C, valid_CR
        )
        flat = (R_CR + self._row * a_CP.shape[1]).view(-1)
        a_CP.view(-1).index_put_((flat,), a_CP.new_tensor(_GONE))
        rest, inner, others, above = self._reduce(a_CP, d_CP, *biases, *refined)
        values = torch.cat([rest + inner.sum(2), others])
        counts[2:] += above + 1
        return _token_values(values[:, :count], torch.cat([counts, tops])[:, :count], finite_C[:count])

    def _bounded(self, hidden_CD: torch.Tensor, head: Head) -> torch.Tensor:
        """Rows whose logits are surely finite: Σ|h|·max|W| bounds them. False for NaN and infinity."""
        bound_C = hidden_CD.float().abs().sum(1) * head.largest_weight
        if head.bias_V is not None:
            bound_C = bound_C + head.bias_V.abs().max().to(bound_C.device)
        return bound_C * max(1.0, abs(head.scale)) < _LARGEST

    def _products(self, h: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """W·h of the reference and its difference to the candidate's, each [C, P]; columns of padding are taken out."""
        a_CP, d_CP = self._tile[: self.chunk], self._tile[self.chunk :]
        if self._difference is None:
            # One product: the matrix comes from memory once.
            torch.mm(torch.cat([h, h - k]), self._weight.T, out=self._tile)
        else:
            torch.mm(h, self._weight.T, out=a_CP)
            inputs = (h - k, k) if self._form.heads == "differ" else (h, k)
            torch.mm(torch.cat(inputs, dim=1), self._difference.T, out=d_CP)
        a_CP[:, self.reference.vocabulary :] = _GONE
        return a_CP, d_CP

    def _largest(self, a_CP: torch.Tensor, d_CP: torch.Tensor, next_C: torch.Tensor) -> torch.Tensor:
        """Ids of the `REFINED` largest tokens of either row and of the observed token, rising, with repetitions."""
        count = a_CP.shape[1] // BLOCK
        found = [next_C[:, None]]
        maxima = self._block_maxima(a_CP, d_CP, self._bias_a, self._bias_d)
        for which, maxima_CB in enumerate(maxima):
            block_CK = maxima_CB.topk(min(REFINED, count)).indices
            at = block_CK + self._row * count
            a, d = (torch.nn.functional.embedding(at, tile.view(-1, BLOCK)) for tile in (a_CP, d_CP))
            if self._form.biased:
                biases = tuple(
                    torch.nn.functional.embedding(block_CK, bias.view(-1, BLOCK))
                    for bias in (self._bias_a, self._bias_d)
                )
            else:
                biases = (self._bias_a, self._bias_d)
            a, d = self._form.finish(a, d, *biases)
            inside = ((a - d) if which else a).flatten(1).topk(REFINED).indices
            found.append(block_CK.gather(1, inside // BLOCK) * BLOCK + inside % BLOCK)
        return torch.cat(found, dim=1).sort(1).values


def _token_values(values: torch.Tensor, counts: torch.Tensor, finite_T: torch.Tensor) -> TokenValues:
    finite = finite_T.cpu().numpy() & np.isfinite(values.cpu().numpy()).all(axis=0)
    numbers = np.where(finite, values.cpu().numpy(), np.float32(np.nan))
    whole = np.where(finite, counts.cpu().numpy(), 0)
    columns = dict(zip(_VALUES, numbers, strict=True)) | dict(zip(_COUNTS, whole, strict=True))
    agree = finite & (columns["top_reference"] == columns["top_candidate"])
    return TokenValues(**columns, top1_agree=agree, finite=finite)
