"""How far the served distribution was from the reference's, at each position that a request generated.

For a request the row before each generated token is scored: KL(reference‖candidate) without any correction (`raw`), and
with each correction that is asked for (the one it was served with, one that is on trial), over the full vocabulary. The
corrections run through the same `apply_hidden` and `apply_logits` that the serving process calls.

A correction that leaves logits alone is one more hidden state, and goes through `Divergence` in its difference form.
One that acts on logits needs them in float32, a chunk of rows at a time. Then `raw` is computed from such logits too,
so that its difference to `calibrated` is not one of arithmetic.

The engine term is KL(serving‖scoring): what the serving engine's last hidden state said against what the scoring
engine's says, for the same weights and tokens, both through the candidate's head.

Names: T positions, C positions of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from workers.calibrators.protocol import Calibrator, RowContext
from workers.distributions.divergence import Divergence, Precision
from workers.distributions.head import Head, pair_on

RAW = "raw"
# Bytes of one float32 tile of logits, three or four of which are alive at once.
_TILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Rows:
    """The generated positions of one request, or of several joined: row t predicts `next_T[t]`.

    `stream` names the corrections within the layers that made `candidate_TD` (`stream_of`); "": none.
    """

    reference_TD: torch.Tensor
    candidate_TD: torch.Tensor
    next_T: torch.Tensor
    context: RowContext
    stream: str = ""

    def __len__(self) -> int:
        return self.next_T.shape[0]

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(
            self.reference_TD.to(device),
            self.candidate_TD.to(device),
            self.next_T.to(device),
            self.context.to(device),
            self.stream,
        )

    def only(self, chosen_T: NDArray[np.bool_]) -> Self:
        """The rows where `chosen_T` is True."""
        if chosen_T.all():
            return self
        rows = torch.from_numpy(np.flatnonzero(chosen_T))
        return type(self)(
            self.reference_TD[rows], self.candidate_TD[rows], self.next_T[rows], self.context.select(rows), self.stream
        )

    @classmethod
    def of_request(
        cls, prompt: Sequence[int], output: Sequence[int], reference_TD: torch.Tensor, candidate_TD: torch.Tensor
    ) -> Self:
        """The rows of a request from the hidden states of its window (`window_of`), (len(window), D) each.

        A prompt of no tokens has no row before its first output token; that token is left out.
        """
        first = max(0, len(prompt) - 1)
        tokens = torch.tensor([*prompt, *output], dtype=torch.int64)
        positions_T = torch.arange(first + 1, len(tokens), dtype=torch.int64)
        context = RowContext(positions_T, tokens[first:-1])
        return cls(reference_TD[first:], candidate_TD[first:], tokens[first + 1 :], context)

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Self:
        """Rows of several requests, in order."""
        context = RowContext(
            torch.cat([part.context.position_T for part in parts]), torch.cat([part.context.token_T for part in parts])
        )
        return cls(
            torch.cat([part.reference_TD for part in parts]),
            torch.cat([part.candidate_TD for part in parts]),
            torch.cat([part.next_T for part in parts]),
            context,
        )


def window_of(prompt: Sequence[int], output: Sequence[int]) -> list[int]:
    """What both models read: prompt and output without the last token, after which nothing is predicted."""
    return [*prompt, *output][:-1]


@dataclass(frozen=True)
class Scores:
    """Per position: `kl_T` nats (float64), whether both rank the same token first, and whether all was finite.

    Where `finite_T` is False, `kl_T` is NaN.
    """

    kl_T: NDArray[np.float64]
    agree_T: NDArray[np.bool_]
    finite_T: NDArray[np.bool_]

    def slice(self, start: int, stop: int) -> Scores:
        """Some positions."""
        return Scores(self.kl_T[start:stop], self.agree_T[start:stop], self.finite_T[start:stop])


class Scorer:
    """Scores rows of one reference and candidate. One thread at a time.

    `precision` is that of `Divergence`. Raises VOCABULARY_MISMATCH as it does.
    """

    def __init__(
        self, reference: Head, candidate: Head, *, precision: Precision = "fast", device: str | torch.device
    ) -> None:
        self.device = torch.device(device)
        self._divergence = Divergence(reference, candidate, precision=precision, device=device)
        self._same = (
            self._divergence
            if reference is candidate
            else Divergence(candidate, candidate, precision=precision, device=device)
        )
        self._reference, self._candidate = pair_on(reference, candidate, self.device)
        self._chunk = max(1, min(512, _TILE_BYTES // (4 * reference.vocabulary)))

    def warm_up(self) -> None:
        """Compiles what is compiled (seconds) now, not at the first request."""
        self._divergence.warm_up()
        self._same.warm_up()

    def score(
        self,
        rows: Rows,
        corrections: Mapping[str, Calibrator],
        states: Mapping[str, torch.Tensor] | None = None,
        *,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> dict[str, Scores]:
        """Scores of `raw` and of each correction by its name; the corrections lie on this scorer's device.

        `states` [T, D] are the candidate's hidden states under corrections that act within the layers, by their names;
        others act on those of the rows. `check_cancelled` is called between chunks.
        """
        if len(rows) == 0:
            return {name: _nothing() for name in (RAW, *corrections)}
        rows = rows.to(self.device)
        hidden: dict[str, torch.Tensor] = {}
        with torch.inference_mode():
            for name, correction in corrections.items():
                own_TD = (states or {}).get(name, rows.candidate_TD).to(self.device)
                hidden[name] = correction.apply_hidden(own_TD, rows.context)
        if any(acts_on_logits(one, self._candidate.vocabulary, device=self.device) for one in corrections.values()):
            return self._through_logits(rows, corrections, hidden, check_cancelled)
        found = {RAW: self._pair(rows.reference_TD, rows.candidate_TD, rows.next_T, check_cancelled)}
        for name, hidden_TD in hidden.items():
            if hidden_TD is rows.candidate_TD:  # one that changes nothing returns its argument itself
                found[name] = found[RAW]
            else:
                found[name] = self._pair(rows.reference_TD, hidden_TD, rows.next_T, check_cancelled)
        return found

    def engine_term(
        self,
        serving_TD: torch.Tensor,
        scoring_TD: torch.Tensor,
        next_T: torch.Tensor,
        *,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> Scores:
        """KL(serving‖scoring) of the same weights at the same positions."""
        values = self._same(serving_TD, scoring_TD, next_T, check_cancelled=check_cancelled)
        return _scores(values.kl, values.top1_agree, values.finite)

    def _pair(
        self,
        reference_TD: torch.Tensor,
        candidate_TD: torch.Tensor,
        next_T: torch.Tensor,
        check_cancelled: Callable[[], None],
    ) -> Scores:
        values = self._divergence(reference_TD, candidate_TD, next_T, check_cancelled=check_cancelled)
        return _scores(values.kl, values.top1_agree, values.finite)

    def _through_logits(
        self,
        rows: Rows,
        corrections: Mapping[str, Calibrator],
        hidden: Mapping[str, torch.Tensor],
        check_cancelled: Callable[[], None],
    ) -> dict[str, Scores]:
        parts: dict[str, list[Scores]] = {name: [] for name in (RAW, *corrections)}
        with torch.inference_mode():
            for start in range(0, len(rows), self._chunk):
                check_cancelled()
                chosen = slice(start, start + self._chunk)
                reference_CV = self._reference.logits(rows.reference_TD[chosen]).log_softmax(dim=1)
                raw_CV = self._candidate.logits(rows.candidate_TD[chosen])
                raw = _divergences(reference_CV, raw_CV)
                parts[RAW].append(raw)
                context = RowContext(rows.context.position_T[chosen], rows.context.token_T[chosen])
                for name, correction in corrections.items():
                    plain = hidden[name] is rows.candidate_TD
                    logits_CV = raw_CV if plain else self._candidate.logits(hidden[name][chosen])
                    corrected_CV = correction.apply_logits(logits_CV, context)
                    parts[name].append(raw if corrected_CV is raw_CV else _divergences(reference_CV, corrected_CV))
        return {name: _joined(scores) for name, scores in parts.items()}


def acts_on_logits(correction: Calibrator, vocabulary: int, *, device: torch.device | str) -> bool:
    """Whether it changes logits at all: one that does not returns its argument itself."""
    logits_TV = torch.zeros(1, vocabulary, device=device)
    zero_T = torch.zeros(1, dtype=torch.int64, device=device)
    with torch.inference_mode():
        return correction.apply_logits(logits_TV, RowContext(zero_T + 1, zero_T)) is not logits_TV


def _divergences(reference_CV: torch.Tensor, logits_CV: torch.Tensor) -> Scores:
    """`reference_CV` are the reference's log-probabilities, `logits_CV` the other's logits."""
    candidate_CV = logits_CV.float().log_softmax(dim=1)
    kl_C = (reference_CV.exp() * (reference_CV - candidate_CV)).sum(dim=1, dtype=torch.float64)
    agree_C = reference_CV.argmax(dim=1) == candidate_CV.argmax(dim=1)
    return _scores(kl_C.clamp(min=0).cpu().numpy(), agree_C.cpu().numpy(), torch.isfinite(kl_C).cpu().numpy())


def _scores(kl: NDArray[Any], agree: NDArray[Any], finite: NDArray[Any]) -> Scores:
    finite_T = np.asarray(finite, dtype=np.bool_)
    return Scores(
        np.where(finite_T, np.asarray(kl, dtype=np.float64), np.nan), np.asarray(agree, dtype=np.bool_), finite_T
    )


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(
        np.concatenate([part.kl_T for part in parts]),
        np.concatenate([part.agree_T for part in parts]),
        np.concatenate([part.finite_T for part in parts]),
    )


def _nothing() -> Scores:
    return Scores(np.zeros(0), np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.bool_))
