"""Text that a model writes by itself, to fit on beside a calibration text.

A fit on one kind of text follows it; what a model writes unasked is spread over what it was trained on. That a
model's own words may stand for text that is not at hand is from LLM-QAT (arXiv 2305.17888).
Each begins with any token of the vocabulary, and the rest is drawn from the model's distribution as it is. Texts are
short, since every token of one waits for the one before, and several stand in a window one after the other, as
documents of a calibration text do.

Names: N windows, L tokens of a window, P pieces, M tokens of a piece, V tokens of the vocabulary.
"""

import math
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# Tokens of one piece at most, and pieces that are written at once.
PIECE = 256
BATCH = 32


def own_text(
    model: Skeleton,
    tokens_NL: torch.Tensor,
    windows: int,
    *,
    seed: int,
    starts_V: torch.Tensor | None = None,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> torch.Tensor:
    """(windows, L) int64 on the host that `model` writes, each piece from one of `starts_V` on, all as
    likely; without them from a token of `tokens_NL`. Where all windows of that begin with one token, as
    with a BOS, so do these. The model is given all its weights. The same seed gives the same text
    on the same machine. Raises what `check_cancelled` raises."""
    length = tokens_NL.shape[1]
    first = int(tokens_NL[0, 0])
    begun = length > 1 and len(tokens_NL) > 1 and bool((tokens_NL[:, 0] == first).all())
    body = length - begun
    each = math.ceil(body / PIECE)
    size = math.ceil(body / each)
    model.whole(check_cancelled)
    found = []
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []), torch.device("cpu"):
        torch.manual_seed(seed % 2**63)
        starts_P = _starts(tokens_NL[:, int(begun) :] if starts_V is None else starts_V, windows * each)
        total = windows * each * size
        for at in range(0, windows * each, BATCH):
            part_P = starts_P[at : at + BATCH]
            hook = _ProgressHook(progress, check_cancelled, at * size, len(part_P), total, int(begun))
            found.append(_written(model, part_P, size, first if begun else None, hook))
    pieces_PM = torch.cat(found)
    text_NL = pieces_PM.reshape(windows, each * size)[:, :body]
    progress("own text", total, total)
    return torch.cat([text_NL.new_full((windows, 1), first), text_NL], dim=1) if begun else text_NL.contiguous()


def dealt(tokens_NL: torch.Tensor, own_NL: torch.Tensor) -> torch.Tensor:
    """Both texts' windows, either spread evenly over the whole, so that any part has as much of each."""
    places = [
        ((index + 0.5) / len(one), which, index)
        for which, one in enumerate((tokens_NL, own_NL))
        for index in range(len(one))
    ]
    both = (tokens_NL, own_NL)
    return torch.stack([both[which][index] for _, which, index in sorted(places)])


def _starts(tokens: torch.Tensor, count: int) -> torch.Tensor:
    flat_T = tokens.flatten()
    return flat_T[torch.randint(len(flat_T), (count,))]


def _written(
    model: Skeleton, starts_P: torch.Tensor, size: int, first: int | None, hook: "_ProgressHook"
) -> torch.Tensor:
    begun_PM = starts_P[:, None]
    if first is not None:
        begun_PM = torch.cat([torch.full_like(begun_PM, first), begun_PM], dim=1)
    if size == 1:
        return starts_P[:, None]
    language: Any = model.model
    written_PM: torch.Tensor = language.generate(
        begun_PM.to(model.device),
        attention_mask=torch.ones_like(begun_PM, device=model.device),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=size - 1,
        eos_token_id=None,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([hook]),
    )
    return written_PM[:, -size:].cpu()


class _ProgressHook(StoppingCriteria):
    """Stops nothing: says how far it is, and asks whether to go on."""

    def __init__(
        self, progress: Progress, check: CheckCancelled, before: int, pieces: int, total: int, prefix: int
    ) -> None:
        self._progress, self._check = progress, check
        self._before, self._pieces, self._total, self._prefix = before, pieces, total, prefix

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._check()
        self._progress("own text", self._before + self._pieces * (input_ids.shape[1] - self._prefix), self._total)
        return input_ids.new_zeros(len(input_ids), dtype=torch.bool)
