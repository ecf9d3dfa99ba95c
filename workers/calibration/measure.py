"""What a correction does to every row: distances from the reference, raw and calibrated, over the full vocabulary.

Hidden states are corrected in the dtype in which they are served, and logits are products in float32. Raw and
calibrated models go through the same arithmetic, so that their difference is not rounding's. Here p is the reference's
distribution, q the model's. All is in nats, with reductions in float32 over log-probabilities.

Names: T rows, C rows of a chunk, V vocabulary.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from workers.calibration.reductions import Reductions, State
from workers.calibration.rows import Rows
from workers.calibrators.blocks import blocks_of
from workers.calibrators.protocol import Calibrator
from workers.distributions.head import Head, pair_on
from workers.distributions.terms import distances
from workers.distributions.token_values import TokenValues

Array = NDArray[np.float64]
# Logits of a chunk: about so many numbers, 32 MiB in float32. Another size is another format of kept reductions.
CHUNK_LOGITS: Final = 1 << 23
COST_ROWS: Final = 32
COST_ROUNDS: Final = 7
_KL: Final = "column of KL"  # no field of the values is called so


class Logits:
    """Logits of the reference, the raw model, and of each calibrator, chunk by chunk, on `device`.

    The heads are held there in float32. Calibrators that it is given are there too.
    """

    def __init__(self, reference: Head, candidate: Head, *, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.reference, self.candidate = pair_on(reference, candidate, self.device, torch.float32)

    def chunks(self, rows: Rows, check_cancelled: Callable[[], None] = lambda: None) -> Iterator[tuple[int, Rows]]:
        """The rows in order on the device, as many at once as memory should hold, and how many there are with
        them."""
        size = max(8, CHUNK_LOGITS // self.reference.vocabulary)
        for start in range(0, len(rows), size):
            check_cancelled()
            end = min(start + size, len(rows))
            yield end, rows.select(np.arange(start, end)).to(self.device)

    def of_reference(self, rows: Rows) -> torch.Tensor:
        """Logits [C, V] in float32."""
        return self.reference.logits(rows.reference_TD)

    def of_raw(self, rows: Rows) -> torch.Tensor:
        """Logits [C, V] in float32."""
        return self.candidate.logits(rows.candidate_TD)

    def of(self, calibrator: Calibrator, rows: Rows, raw_CV: torch.Tensor) -> torch.Tensor:
        """Logits [C, V] of the calibrated model; `raw_CV`, those of the raw one, is not written to.

        Raises ValueError for corrections after each block if the rows have no states with them.
        """
        states_TD = rows.corrected_TD if blocks_of(calibrator) else rows.candidate_TD
        if states_TD is None:
            raise ValueError("the rows have no states with corrections after each block")
        hidden = calibrator.apply_hidden(states_TD, rows.context)
        logits_CV = raw_CV if hidden is rows.candidate_TD else self.candidate.logits(hidden)
        return calibrator.apply_logits(logits_CV, rows.context)


def mean_kl_columns(
    rows: Rows,
    logits: Logits,
    calibrators: Mapping[str, Calibrator],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    check_cancelled: Callable[[], None] = lambda: None,
    reductions: Reductions | None = None,
) -> dict[str, Array]:
    """KL(p‖q) of every row, [T] float64 by name; the raw model under "". NaN if logits are not finite."""
    return measured(
        rows, logits, calibrators, progress=progress, check_cancelled=check_cancelled, reductions=reductions
    )[0]


def measured(
    rows: Rows,
    logits: Logits,
    calibrators: Mapping[str, Calibrator],
    *,
    valued: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
    check_cancelled: Callable[[], None] = lambda: None,
    reductions: Reductions | None = None,
) -> tuple[dict[str, Array], dict[str, TokenValues]]:
    """KL(p‖q) of every row by model, as `mean_kl_columns`; and of the models `valued` everything that a report says of
    a row. The rows are gone through once, because the logits of the reference cost most."""
    names = ("", *calibrators)
    columns: dict[str, Array] = {name: np.empty(0) for name in names}
    values: dict[str, dict[str, Any]] = {name: {} for name in valued}

    def of(part: tuple[int, Rows]) -> State:
        done, chunk = part
        reference_CV, raw_CV = logits.of_reference(chunk), logits.of_raw(chunk)
        log_p = reference_CV.log_softmax(1)
        p = log_p.exp()
        found: dict[str, torch.Tensor] = {}
        for number, name in enumerate(names):
            check_cancelled()
            model_CV = logits.of(calibrators[name], chunk, raw_CV).float() if name else raw_CV
            found[f"{number} {_KL}"] = kl_of(p, log_p, model_CV.log_softmax(1))
            if name in values:
                held = vars(values_of(reference_CV, model_CV, chunk.next_T))
                found |= {f"{number} {field}": torch.from_numpy(column) for field, column in held.items()}
        progress(done, len(rows))
        return found

    with torch.inference_mode():
        kept = (reductions or Reductions()).columns("rows", logits.chunks(rows, check_cancelled), of)
    for key, column in kept.items():
        number, field = key.split(" ", 1)
        name = names[int(number)]
        if field == _KL:
            columns[name] = column.numpy()
        else:
            values[name][field] = column.numpy()
    return columns, {name: TokenValues(**held) if held else TokenValues.concat([]) for name, held in values.items()}


def kl_of(p: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Σ p (ln p − ln q), of each row, float64. Terms with p = 0 are 0, also where ln q is −∞; NaN in either is NaN."""
    terms = torch.where(p == 0, 0.0, p * (log_p - log_q))
    return terms.sum(1).clamp(min=0).double()


def values_of(reference_CV: torch.Tensor, model_CV: torch.Tensor, next_C: torch.Tensor) -> TokenValues:
    """The values of rows of logits in float32 or float64; rows that are not finite are marked."""
    finite_C = reference_CV.isfinite().all(1) & model_CV.isfinite().all(1)
    if not bool(finite_C.all()):
        reference_CV = reference_CV.masked_fill(~finite_C[:, None], 0)
        model_CV = model_CV.masked_fill(~finite_C[:, None], 0)
    log_p, log_q = reference_CV.log_softmax(1), model_CV.log_softmax(1)
    p, q = log_p.exp(), log_q.exp()
    top_p, top_q = (logp.topk(min(10, logp.shape[1]), dim=1).indices for logp in (log_p, log_q))
    best_p, best_q = top_p[:, 0], top_q[:, 0]
    at = next_C[:, None]
    logp_x, logq_x = log_p.gather(1, at), log_q.gather(1, at)
    columns: dict[str, torch.Tensor] = {
        **distances(log_p, log_q),
        "logp_reference": logp_x[:, 0],
        "logp_candidate": logq_x[:, 0],
        "entropy_reference": -(p * log_p).sum(1),
        "entropy_candidate": -(q * log_q).sum(1),
        "top_probability_reference": p.amax(1),
        "overlap5": _common(top_p[:, :5], top_q[:, :5]),
        "overlap10": _common(top_p, top_q),
        "rank_of_reference_top": _rank(log_q, log_q.gather(1, best_p[:, None])),
        "rank_token_reference": _rank(log_p, logp_x),
        "rank_token_candidate": _rank(log_q, logq_x),
        "top_reference": best_p,
        "top_candidate": best_q,
        "top1_agree": best_p == best_q,
        "finite": finite_C,
    }
    made: dict[str, Any] = {}
    for name, column in columns.items():
        blank = torch.nan if column.dtype.is_floating_point else 0
        made[name] = (column if name == "finite" else column.masked_fill(~finite_C, blank)).cpu().numpy()
    return TokenValues(**made)


def cost_microseconds(
    calibrator: Calibrator, logits: Logits, rows: Rows, *, check_cancelled: Callable[[], None] = lambda: None
) -> float:
    """What applying it adds to a token, in a batch of `COST_ROWS`: the median of a few rounds. The product with the
    head is not counted, because it is made in any case. Corrections after each block are applied to last hidden states,
    which takes as long as in the layers."""
    chunk = rows.first(COST_ROWS).to(logits.device)
    raw = logits.of_raw(chunk)
    spent = []
    with torch.inference_mode():
        for _ in range(COST_ROUNDS):
            check_cancelled()
            _wait(logits.device)
            began = time.perf_counter()
            for blocks in blocks_of(calibrator):
                for one in blocks.values():
                    one(chunk.candidate_TD)
            calibrator.apply_hidden(chunk.candidate_TD, chunk.context)
            calibrator.apply_logits(raw, chunk.context)
            _wait(logits.device)
            spent.append(time.perf_counter() - began)
    return 1e6 * statistics.median(spent) / max(1, len(chunk))


def served(calibrators: Mapping[str, Calibrator], device: torch.device, dtype: torch.dtype) -> dict[str, Calibrator]:
    """As they are served: on `device`, for hidden states of `dtype`."""
    return {name: calibrator.to(device, dtype) for name, calibrator in calibrators.items()}


def _wait(device: torch.device) -> None:
    """Waits for a GPU to finish its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _common(one_CK: torch.Tensor, other_CK: torch.Tensor) -> torch.Tensor:
    return (one_CK[:, :, None] == other_CK[:, None, :]).sum((1, 2))


def _rank(log_CV: torch.Tensor, of_C1: torch.Tensor) -> torch.Tensor:
    """1 + the number of tokens that are likelier."""
    return (log_CV > of_C1).sum(1) + 1
