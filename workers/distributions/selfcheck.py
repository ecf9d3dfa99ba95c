"""Is our head the engine's head? Checked once, before a number is believed.

The pooling engine that gives hidden states has no head. Ours is compared with the log-probabilities that a
generate-runner engine of the same weights computes for the same short text. The logits of vLLM are rounded to bf16,
whose spacing is 2^-8 relative to the largest logit. So |Δ ln p| ≤ 2^-7 · max|logit| is what rounding of logits
explains.

The hidden states themselves are not the same in two engines either, where both ran the text in batches of another
shape. Every block rounds the residual stream to bf16 twice, in another order of sums. In random directions n roundings
of relative size 2^-8 move h by √n · 2^-8 · |h|. They move ln p by that times the length of its gradient over √D.
`SIGMAS` of these are allowed at a single position, but only few positions may need it: a head that we misunderstand is
off everywhere.

A scale that is wrong by 1 % moves single positions by less than rounding does, and all of them the same way. So our
ln p less the engine's, of the 64 likeliest tokens at each position, is regressed on the mean of both, each less its
mean at the position. Both are rounded alike, so rounding gives a slope near 0 (regressed on ours alone, it would give
the share of our rounding in the variance). A scale that is too large by 1 % gives 0.01. Honest heads of SmolLM2 had
slopes of at most 0.0030: twelve texts of 87 to 128 positions, a processor with AMX, where engines differ most. `SLOPE`
is what is allowed for 64 positions and more. The mean of the differences is 0 as well: `MEAN` times the largest logit
is allowed, of which SmolLM2's honest head had an eighth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.files import write_atomically
from workers.distributions.head import Head

TOLERANCE = 2.0**-7
# Standard deviations of what rounding of hidden states does to one position.
SIGMAS = 3.0
# So many positions must be explained by rounding of logits alone.
MOST = 0.9
SLOPE, SLOPE_POSITIONS = 0.005, 64
MEAN = 2.0**-9
# Rows of the head that are made float32 at a time.
_ROWS = 8192
Logprobs = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True)
class HeadCheck:
    """A check that passed: the largest |Δ ln p| of the text's tokens, what was allowed there, and the mean over all
    that were compared, in nats. `slope` is how much larger our logits are than the engine's, of 1."""

    largest_difference: float
    allowed: float
    slope: float
    mean: float
    tokens: int


def check_head(
    head: Head, hidden_TD: torch.Tensor, tokens: Sequence[int], engine_TV: Logprobs, *, roundings: int = 0
) -> HeadCheck:
    """Compares ln p from `hidden_TD` (T, D) through our head with the engine's, rows (T − 1, V). They are of
    tokens[1:], and of every other token that has a value, NaN being none.

    `roundings`: how often the residual stream was rounded on its way in either engine; 0: the hidden states are the
    engine's own. Raises `HemostatError(HEAD_MISMATCH)` with the position and both numbers where they differ by more
    than rounding explains, or with the scale or the mean that is not the engine's.
    """
    engine_logp = engine_TV[np.arange(len(tokens) - 1), tokens[1:]]
    logits_TV = head.logits(hidden_TD[:-1])
    following_T1 = torch.as_tensor(np.asarray(tokens[1:], dtype=np.int64))[:, None]
    logp_TV = torch.log_softmax(logits_TV, dim=1)
    ours = logp_TV.gather(1, following_T1)[:, 0].double().numpy()
    rounding = TOLERANCE * logits_TV.abs().amax(dim=1).double().numpy()
    allowed = rounding
    if roundings:
        moved = moved_by_rounding(head, hidden_TD[:-1], logits_TV, logp_TV, following_T1, roundings)
        allowed = rounding + SIGMAS * moved
    difference = np.abs(ours - np.asarray(engine_logp, dtype=np.float64))
    if not float((difference <= rounding).mean()) >= MOST:
        allowed = rounding
    worst = int(np.argmax(difference - allowed))
    if not difference[worst] <= allowed[worst]:
        raise _mismatch(
            head,
            f"at position {worst + 1} of the check the engine gives ln p = {engine_logp[worst]:.4f}, our head "
            f"{ours[worst]:.4f}; rounding explains a difference of {allowed[worst]:.4f}",
        )
    slope, mean = _as_a_whole(logp_TV.numpy(), engine_TV)
    most = SLOPE * max(1.0, (SLOPE_POSITIONS / len(engine_TV)) ** 0.5)
    if not abs(slope) <= most:
        raise _mismatch(head, f"our logits are {slope:+.2%} larger than the engine's; rounding explains {most:.2%}")
    largest = MEAN / TOLERANCE * float(rounding.mean())
    if not abs(mean) <= largest:
        raise _mismatch(head, f"our ln p is {mean:+.4f} above the engine's on average; rounding explains {largest:.4f}")
    return HeadCheck(float(difference.max()), float(allowed.max()), slope, mean, len(tokens))


def _as_a_whole(ours_TV: Logprobs, engine_TV: Logprobs) -> tuple[float, float]:
    """(slope, mean) of our ln p less the engine's: on the mean of both, less their means at a position; and in nats."""
    products = squares = total = 0.0
    for ours_V, engine_V in zip(ours_TV, engine_TV, strict=True):
        told = ~np.isnan(engine_V)
        ours, engine = ours_V[told].astype(np.float64), engine_V[told].astype(np.float64)
        difference, middle = ours - engine, (ours + engine) / 2
        total += float(difference.mean())
        centred = middle - middle.mean()
        products += float(difference @ centred)
        squares += float(centred @ centred)
    return products / squares if squares else np.nan, total / len(ours_TV)


def _mismatch(head: Head, what: str) -> HemostatError:
    return HemostatError(
        ErrorCode.HEAD_MISMATCH,
        f"{what} (the head of {head.architecture})",
        hint="Hemostat cannot reproduce this architecture's head: use another model",
    )


def moved_by_rounding(
    head: Head,
    hidden_TD: torch.Tensor,
    logits_TV: torch.Tensor,
    logp_TV: torch.Tensor,
    following_T1: torch.Tensor,
    roundings: int,
) -> Logprobs:
    """(T) one standard deviation of ln p of the following token where the hidden states were rounded so often, in nats.

    `hidden_TD`, `logits_TV` and `logp_TV` are of the same positions, `following_T1` their next tokens. The formula is
    the module's.
    """
    slope_TV = -logp_TV.exp()
    slope_TV.scatter_add_(1, following_T1, torch.ones_like(following_T1, dtype=slope_TV.dtype))
    slope_TV *= head.scale
    if head.softcap is not None:
        slope_TV *= 1 - (logits_TV / (head.scale * head.softcap)).square()
    gradient_TD = torch.zeros(hidden_TD.shape)
    for first in range(0, head.vocabulary, _ROWS):
        rows = slice(first, first + _ROWS)
        gradient_TD += slope_TV[:, rows] @ head.weight_VD[rows].float()
    moved_T = roundings**0.5 * 2.0**-8 * hidden_TD.float().norm(dim=1)
    found: Logprobs = (moved_T * gradient_TD.norm(dim=1) / hidden_TD.shape[1] ** 0.5).double().numpy()
    return found


def verify_head(
    head: Head,
    hidden: Callable[[], torch.Tensor],
    tokens: Sequence[int],
    *,
    root: Path,
    engine: str,
    engine_logp: Callable[[], Logprobs],
    roundings: int = 0,
) -> bool:
    """`check_head`, once for a head and an engine: that it passed is kept below `root`. Answers whether it was kept.

    `hidden` gives hidden_TD of the tokens and `engine_logp` runs the engine; both are called only for a head that was
    not checked. A recipe that leaves norm and head alone has the same fingerprint, and so inherits the check. Where
    hidden states are not finite nothing can be compared: nothing is kept, and the comparison will say what it finds.
    """
    named = hashlib.sha256(f"{head.fingerprint}\0{head.architecture}\0{engine}".encode()).hexdigest()
    kept = root / f"{named}.json"  # an engine's identity is longer than a file's name may be
    try:
        HeadCheck(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        hidden_TD = hidden()
        if bool(hidden_TD.isfinite().all()):
            check = check_head(head, hidden_TD, tokens, engine_logp(), roundings=roundings)
            root.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, json.dumps(asdict(check)).encode())
        return False
    return True
