"""Divergences of two next-token distributions from the hidden states of both models, over the full vocabulary.

p is the reference's distribution and q the candidate's, a and b their logits. All depends on b − a, and two rows of
logits, each rounded to bf16, differ by more rounding than an 8-bit quantization causes. The mean KL of such a model
comes out 17 % too large. So the second product is not b but the *difference* W·(h_ref − h_cand), whose rounding is
relative to itself; heads that differ add (W_ref − W_cand)·h_cand. Soft cap, scale and bias are carried through in
difference form (`fused.py`), and the sums run over summands that cannot cancel (`terms.py`). No result is negative, and
equal inputs give exactly 0.

The few tokens that carry most of the mass are the ones where a rounded logit would hurt. The twelve largest of either
row, and the observed token, are *refined*: their logits are computed again in float32 and taken out of the rounded
tile. They come from the twelve blocks of 64 tokens with the largest maxima, which contain the twelve largest tokens of
the rounded row. Top-1 and overlaps are found among the refined; ranks count refined logits against refined ones, and
rounded ones for the rest.

Positions go through in chunks of one size, the last one padded: one compiled graph, memory that does not grow with T.
From hidden states to values nothing waits for the device: `start` asks for values that are read later.

Names: T positions, C positions of a chunk, D hidden size, V vocabulary (P: padded to whole blocks), R refined tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding, pad

from app.contracts.distances import DISTANCES
from app.contracts.errors import ErrorCode, HemostatError
from workers.distributions.fused import BLOCK, GONE, LARGEST, SEGMENT, Form, graphs
from workers.distributions.head import Head
from workers.distributions.memory import empty_large
from workers.distributions.terms import TERMS
from workers.distributions.token_values import TokenValues
from workers.products import lacking

Precision = Literal["fast", "float32"]

# Refined tokens of either row. More than the ten of the overlaps: rounding may misplace the tenth. No more, because up
# to a 64th of the number of blocks (768 for the demo model) torch.topk sorts partially and takes a third of the time.
REFINED = 12
# Positions of a chunk: enough that what is done once a chunk costs little, no more, since the last one is padded; a GPU
# wants more work a launch. Half of it where the vocabulary is so large that the tile would take half a gigabyte.
CHUNK = {"cpu": 256, "cuda": 512}
LARGE_VOCABULARY = 2**17

# In the order in which `_chunk` makes them.
_VALUES = (
    *TERMS,
    "entropy_reference",
    "entropy_candidate",
    "logp_reference",
    "logp_candidate",
    "top_probability_reference",
)
# Those of one model alone.
_OF_REFERENCE = ("entropy_reference", "logp_reference", "top_probability_reference")
_OF_CANDIDATE = ("entropy_candidate", "logp_candidate")
_COUNTS = (
    "overlap5",
    "overlap10",
    "rank_of_reference_top",
    "rank_token_reference",
    "rank_token_candidate",
    "top_reference",
    "top_candidate",
)


def arithmetic(precision: Precision, device: str | torch.device) -> Precision:
    """What a divergence that was asked for in `precision` is computed in: on a CPU without bf16 products float32 is the
    faster one, and no less exact."""
    return "float32" if torch.device(device).type == "cpu" and lacking(torch.bfloat16) else precision


@contextmanager
def _sums_in_float32() -> Iterator[None]:
    """Others in the process may have allowed less than float32 for what is called float32. On a GPU torch lets
    cuBLAS add partial sums of bf16 products up in bf16."""
    precision = torch.get_float32_matmul_precision()
    reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    if reduced:  # set again to False it would allow what batch invariance forbids
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if reduced:
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True


class Started:
    """Values of positions that a device may still be computing."""

    def __init__(self, parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        device = parts[0].device
        # Memory of the host that a GPU writes to while the host goes on.
        self._parts = tuple(part.to("cpu", non_blocking=True) for part in parts)
        self._done = None if device.type == "cpu" else torch.Event(device)
        if self._done is not None:
            self._done.record()

    @property
    def ready(self) -> bool:
        """Whether reading them does not wait; always so on a CPU."""
        return self._done is None or self._done.query()

    def values(self) -> TokenValues:
        """The values; waits for the device."""
        if self._done is not None:
            self._done.synchronize()
        return _token_values(*self._parts)


class Divergence:
    """Token values of a reference and a candidate from their hidden states.

    `precision` "fast": products in bf16 with float32 accumulation, in difference form; means are within 2e-3 (relative)
    of float64 on the same hidden states. "float32": all in float32, within 1e-4; several times slower. A CPU without
    bf16 products computes both so.

    Holds the heads on `device` ("float32": a float32 copy) and a tile of 2·C·V numbers. One thread at a time.

    Raises `HemostatError(VOCABULARY_MISMATCH)` if the vocabularies differ in size.
    """

    def __init__(
        self, reference: Head, candidate: Head, *, precision: Precision = "fast", device: str | torch.device
    ) -> None:
        if reference.vocabulary != candidate.vocabulary:
            raise HemostatError(
                ErrorCode.VOCABULARY_MISMATCH,
                f"the reference's head has {reference.vocabulary} tokens, the candidate's {candidate.vocabulary}",
                hint="compare models with the same vocabulary",
            )
        if precision not in ("fast", "float32"):
            raise ValueError(f"precision is {precision!r}, fast or float32 is needed")
        self.reference = reference
        self.candidate = candidate
        self.device = torch.device(device)
        precision = arithmetic(precision, self.device)
        self.precision = precision
        chunk = CHUNK.get(self.device.type, CHUNK["cpu"])
        self.chunk = chunk if reference.vocabulary <= LARGE_VOCABULARY else chunk // 2
        widths = (reference.hidden_size, candidate.hidden_size)
        same = reference.same_matrix(candidate)
        biased = reference.bias_V is not None or candidate.bias_V is not None
        # A bias has a number for each column, which the cut rows would not find.
        long = reference.vocabulary > 4 * SEGMENT and not biased
        self._multiple = SEGMENT if long else BLOCK
        padded = -(-reference.vocabulary // self._multiple) * self._multiple
        form = Form(
            scales=(reference.scale, candidate.scale),
            caps=(reference.softcap, candidate.softcap),
            biased=biased,
            segments=padded // SEGMENT if long else 1,
            gathered=precision == "float32",
            heads="same" if same else "differ" if widths[0] == widths[1] else "widths differ",
        )
        self._form = form
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        self._weight_PD = self._placed(reference.weight_VD, dtype)
        self._other_PD = self._weight_PD if same else self._placed(candidate.weight_VD, dtype)
        # What [h_ref − h_cand, h_cand] (widths differ: [h_ref, h_cand]) is multiplied with; None: the head itself.
        self._difference: torch.Tensor | None = None
        if form.heads == "differ":
            change_VD = (reference.weight_VD.float() - candidate.weight_VD.float()).to(dtype)
            self._difference = torch.cat([self._weight_PD, self._placed(change_VD, dtype)], dim=1)
        elif form.heads == "widths differ":
            self._difference = torch.cat([self._weight_PD, -self._other_PD], dim=1)
        bias_a = self._placed_bias(reference, padded)
        self._biases = (bias_a, bias_a - self._placed_bias(candidate, padded))
        tile = (2 * self.chunk, padded)
        on_cpu = self.device.type == "cpu"
        self._tile = empty_large(tile, dtype) if on_cpu else torch.empty(tile, dtype=dtype, device=self.device)
        self._row_C1 = torch.arange(self.chunk, device=self.device)[:, None]
        self._graphs = graphs(form, (self.chunk, padded, *widths), str(self.device), precision)

    def _placed(self, weight_VD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The matrix on the device, with rows of zeros up to whole blocks and segments."""
        missing = -weight_VD.shape[0] % self._multiple
        if self.device.type != "cpu":
            return pad(weight_VD.to(device=self.device, dtype=dtype), (0, 0, 0, missing))
        if not missing and weight_VD.dtype == dtype and weight_VD.is_contiguous():
            return weight_VD
        placed = empty_large((weight_VD.shape[0] + missing, weight_VD.shape[1]), dtype)
        placed[: weight_VD.shape[0]] = weight_VD
        return placed

    def _placed_bias(self, head: Head, padded: int) -> torch.Tensor:
        """The bias on the device; one zero that nothing reads where neither head has one."""
        if head.bias_V is None:
            return torch.zeros(padded if self._form.biased else 1, device=self.device)
        return pad(head.bias_V.to(self.device), (0, padded - head.vocabulary))

    def __call__(
        self,
        reference_TD: torch.Tensor,
        candidate_TD: torch.Tensor,
        next_T: torch.Tensor | NDArray[np.integer[Any]],
        *,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> TokenValues:
        """The values of T positions: row t of each hidden state predicts token `next_T[t]`.

        Rows may come from several windows; short ones are better joined, because the last chunk is computed in full
        size. `check_cancelled` is called before each chunk. A position with a hidden state that is not finite, or whose
        logits could overflow, has `finite` False, NaN in its values and 0 in its counts. It does not touch others.
        Where one model alone is so, what is the other's own is kept: log-probability, entropy, confidence.

        Hidden states may be of any float dtype; in fast precision the products round them, and their difference, to
        bf16. ValueError for shapes that do not fit and for token ids outside the vocabulary.
        """
        return self.start(reference_TD, candidate_TD, next_T, check_cancelled=check_cancelled).values()

    def start(
        self,
        reference_TD: torch.Tensor,
        candidate_TD: torch.Tensor,
        next_T: torch.Tensor | NDArray[np.integer[Any]],
        *,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> Started:
        """The same, to be read later: on a GPU the host has not waited for it. What is given must not change."""
        tokens_T = torch.as_tensor(next_T).to(torch.int64)
        self._check(reference_TD, candidate_TD, tokens_T)
        return Started(self._parts(reference_TD, candidate_TD, tokens_T, check_cancelled))

    def _parts(
        self,
        reference_TD: torch.Tensor,
        candidate_TD: torch.Tensor,
        tokens_T: torch.Tensor,
        check_cancelled: Callable[[], None],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `_token_values` takes, on the device; no step of it reads a number there."""
        given = [self._sent(part) for part in (reference_TD, candidate_TD, tokens_T)]
        found = (
            torch.empty(len(_VALUES), 0, device=self.device),
            torch.empty(len(_COUNTS), 0, device=self.device, dtype=torch.int32),
            torch.empty(2, 0, device=self.device, dtype=torch.bool),
        )
        parts = [found]
        with _sums_in_float32(), torch.inference_mode():
            for start in range(0, tokens_T.shape[0], self.chunk):
                check_cancelled()
                parts.append(self._chunk(*(part[start : start + self.chunk] for part in given)))
            values, counts, sound = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return values, counts, sound

    def _sent(self, given: torch.Tensor) -> torch.Tensor:
        """On the device, which takes it from the host while the host goes on."""
        if self.device.type == "cuda" and given.device.type == "cpu":
            given = given.pin_memory()
        return given.to(self.device, non_blocking=True)

    def warm_up(self) -> None:
        """Compile now, not in the first call: some fifteen seconds, three where the cache on disk knows the graphs."""
        zeros = [torch.zeros(1, head.hidden_size, dtype=torch.bfloat16) for head in (self.reference, self.candidate)]
        self(zeros[0], zeros[1], torch.zeros(1, dtype=torch.int64))

    def _check(self, reference_TD: torch.Tensor, candidate_TD: torch.Tensor, tokens_T: torch.Tensor) -> None:
        if tokens_T.ndim != 1:
            raise ValueError(f"token ids of shape {tuple(tokens_T.shape)}, one dimension is needed")
        for name, hidden_TD, head in (
            ("reference", reference_TD, self.reference),
            ("candidate", candidate_TD, self.candidate),
        ):
            needed = (tokens_T.shape[0], head.hidden_size)
            if tuple(hidden_TD.shape) != needed:
                raise ValueError(f"{name}: hidden states of shape {tuple(hidden_TD.shape)}, {needed} is needed")
        if tokens_T.numel() and not 0 <= int(tokens_T.min()) <= int(tokens_T.max()) < self.reference.vocabulary:
            raise ValueError(f"token ids reach outside the vocabulary of {self.reference.vocabulary}")

    def _chunk(
        self, reference_TD: torch.Tensor, candidate_TD: torch.Tensor, tokens_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `_token_values` takes, of one chunk, on the device."""
        count = tokens_T.shape[0]
        h, k = self._rows(reference_TD), self._rows(candidate_TD)
        size_h, size_k = h.abs().sum(1), k.abs().sum(1)
        sound_h, sound_k = _bounded(size_h, self.reference), _bounded(size_k, self.candidate)
        # The candidate's logits come by way of the reference's matrix, which has to take what replaces its state.
        replacing = size_k if h.shape == k.shape else torch.zeros_like(size_k)
        sound_2C = torch.stack([sound_h, sound_k & (sound_h | _bounded(replacing, self.reference))])
        h, k = _replaced(h, k, sound_h[:, None], sound_k[:, None])
        next_C = pad(tokens_T, (0, self.chunk - count))
        a_CP, d_CP = self._products(h, k)
        R_CR = self._largest(a_CP, d_CP, next_C)
        valid_CR = pad(R_CR[:, 1:] != R_CR[:, :-1], (1, 0), value=True)
        valid_CR &= R_CR.lt(self.reference.vocabulary)
        u, y, max_a, shift, sum_a, sum_b, b_top, a_x, b_x, counts, tops = self._graphs.refine(
            R_CR, valid_CR, next_C, a_CP, d_CP, h, k, self._weight_PD, self._other_PD, *self._biases
        )
        flat = (R_CR + self._row_C1 * a_CP.shape[1]).view(-1)
        a_CP.view(-1).index_fill_(0, flat, GONE)
        tile = (a_CP, d_CP, *self._biases, max_a, shift)
        rest_a, rest_b, moved = (part.sum(1, keepdim=True) for part in self._graphs.normalise(*tile))
        sum_a, sum_b = sum_a + rest_a, sum_b + rest_b
        # (ln Σe^b − max b) − (ln Σe^a − max a): 0 by definition where no logit moved against its row's largest.
        moved += y.abs().sum(1, keepdim=True)
        log_a, ratio = sum_a.log(), ((sum_b - sum_a) / sum_a).log1p().masked_fill_(moved == 0, 0)
        sums = torch.stack(self._graphs.total(*tile, log_a, ratio, b_top, a_x, b_x)).sum(2)
        (refined,) = self._graphs.refined_terms(u, y, log_a, ratio)
        # Rounding must not make more than certain of what is certain.
        logps = torch.cat([a_x - max_a - log_a, b_x - max_a - shift - log_a - ratio, -log_a], dim=1).T.clamp(max=0)
        summed = len(refined)
        values = torch.cat([sums[:summed] + refined.sum(2), logps[:2], logps[2:].exp()])
        for row, distance in zip(values, DISTANCES, strict=False):
            row.clamp_(max=distance.most)
        counts[2:] += sums[summed:].to(torch.int32) + 1
        return values[:, :count], torch.cat([counts, tops])[:, :count], sound_2C[:, :count]

    def _rows(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        """A chunk's hidden states in float32, padded to the chunk's size."""
        placed = hidden_TD.float()
        return pad(placed, (0, 0, 0, self.chunk - placed.shape[0]))

    def _products(self, h: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """W·h of the reference and its difference to the candidate's, [C, P] each; columns of padding are taken out."""
        a_CP, d_CP = self._tile[: self.chunk], self._tile[self.chunk :]
        dtype = self._tile.dtype
        if self._difference is None:
            # One product: the matrix comes from memory once.
            torch.mm(torch.cat([h, h - k]).to(dtype), self._weight_PD.T, out=self._tile)
        else:
            torch.mm(h.to(dtype), self._weight_PD.T, out=a_CP)
            inputs = (h - k, k) if self._form.heads == "differ" else (h, k)
            torch.mm(torch.cat(inputs, dim=1).to(dtype), self._difference.T, out=d_CP)
        a_CP[:, self.reference.vocabulary :] = GONE
        return a_CP, d_CP

    def _largest(self, a_CP: torch.Tensor, d_CP: torch.Tensor, next_C: torch.Tensor) -> torch.Tensor:
        """Ids of the `REFINED` largest tokens of either row and of the observed token: [C, R], rising, with
        repetitions, and with padding where the vocabulary is that small."""
        blocks = a_CP.shape[1] // BLOCK
        # Both rows of every position at once: first those of a, then those of b.
        maxima = torch.cat(self._graphs.block_maxima(a_CP, d_CP, *self._biases))
        block = maxima.topk(min(REFINED, blocks)).indices
        at = block + self._row_C1.repeat(2, 1) * blocks
        a, d = (embedding(at, part.view(-1, BLOCK)) for part in (a_CP, d_CP))
        biases = self._biases
        if self._form.biased:
            biases = (embedding(block, biases[0].view(-1, BLOCK)), embedding(block, biases[1].view(-1, BLOCK)))
        a, d = self._form.finish(a, d, *biases)
        values = a.flatten(1)
        values[self.chunk :] -= d[self.chunk :].flatten(1)
        inside = values.topk(REFINED).indices
        ids = block.gather(1, inside // BLOCK) * BLOCK + inside % BLOCK
        return torch.cat([*torch.split(ids, self.chunk), next_C[:, None]], dim=1).sort(1).values


def _bounded(size_C: torch.Tensor, head: Head) -> torch.Tensor:
    """Rows whose logits are surely finite, since Σ|h|·max|W| bounds them, `size_C` being Σ|h|. False for NaN and
    infinity."""
    return (size_C * head.largest_weight + head.largest_bias) * max(1.0, abs(head.scale)) < LARGEST


def _replaced(
    h: torch.Tensor, k: torch.Tensor, sound_h: torch.Tensor, sound_k: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """States without those that are not sound: nothing after this has to think of NaN.

    In their place is the other model's state, so that the difference, and with it what is the other's alone, is as
    exact as anywhere. It is 0 if neither is sound, or widths differ. A product does not mix rows.
    """
    h, k = h.masked_fill(~sound_h, 0), k.masked_fill(~sound_k, 0)
    if h.shape[1] != k.shape[1]:
        return h, k
    return torch.where(sound_h, h, k), torch.where(sound_k, k, h)


def _token_values(values: torch.Tensor, counts: torch.Tensor, sound_2T: torch.Tensor) -> TokenValues:
    """Of tensors of the host. `sound_2T`: whether the reference's state is sound, and the candidate's."""
    numbers, whole, (reference, candidate) = values.numpy(), counts.numpy(), sound_2T.numpy()
    finite = reference & candidate
    known = dict.fromkeys(_OF_REFERENCE, reference) | dict.fromkeys(_OF_CANDIDATE, candidate)
    columns = {
        name: np.where(known.get(name, finite), column, np.float32(np.nan))
        for name, column in zip(_VALUES, numbers, strict=True)
    }
    columns |= dict(zip(_COUNTS, np.where(finite, whole, 0), strict=True))
    agree = finite & (columns["top_reference"] == columns["top_candidate"])
    return TokenValues(**columns, top1_agree=agree, finite=finite)
