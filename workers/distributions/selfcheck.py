"""Is our head the engine's head? Checked once, before a number is believed.

The pooling engine that gives hidden states has no head, so ours is compared with the log-probabilities that a
generate-runner engine of the same weights computes for the same short text. vLLM's own logits are rounded to bf16,
whose spacing is 2^-8 relative to the largest logit, so |Δ ln p| ≤ 2^-7 · max|logit| is what rounding explains, and more
is a head that we misunderstand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.distributions.files import write_json
from workers.distributions.head import Head

TOLERANCE = 2.0**-7
Logprobs = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True)
class HeadCheck:
    """A check that passed: the largest |Δ ln p|, and what was allowed, in nats."""

    largest_difference: float
    allowed: float
    tokens: int


def check_head(head: Head, hidden_TD: torch.Tensor, tokens: Sequence[int], engine_logp: Logprobs) -> HeadCheck:
    """Compares ln p of tokens[1:] from `hidden_TD` (T, D) through our head with the engine's (T − 1).

    Raises `HemostatError(HEAD_MISMATCH)` with the position and both numbers where they differ by more than bf16 logits
    explain.
    """
    logits_TV = head.logits(hidden_TD[:-1])
    following = torch.as_tensor(np.asarray(tokens[1:], dtype=np.int64))[:, None]
    ours = torch.log_softmax(logits_TV, dim=1).gather(1, following)[:, 0].double().numpy()
    allowed = TOLERANCE * logits_TV.abs().amax(dim=1).double().numpy()
    difference = np.abs(ours - np.asarray(engine_logp, dtype=np.float64))
    worst = int(np.argmax(difference - allowed))
    if not difference[worst] <= allowed[worst]:
        raise HemostatError(
            ErrorCode.HEAD_MISMATCH,
            f"at position {worst + 1} of the check the engine gives ln p = {engine_logp[worst]:.4f}, our head of "
            f"{head.architecture} {ours[worst]:.4f}; rounding explains a difference of {allowed[worst]:.4f}",
            hint="this architecture's head does something that is not reproduced here; it cannot be compared",
        )
    return HeadCheck(float(difference.max()), float(allowed.max()), len(tokens))


def verify_head(
    head: Head,
    hidden: Callable[[], torch.Tensor],
    tokens: Sequence[int],
    *,
    root: Path,
    engine: str,
    engine_logp: Callable[[], Logprobs],
) -> bool:
    """`check_head`, once for a head and an engine: that it passed is kept below `root`. Answers whether it was kept.

    `hidden` gives hidden_TD of the tokens and `engine_logp` runs the engine; both are called only for a head that was
    not checked. A recipe that leaves norm and head alone has the same fingerprint, and so inherits the check. Where
    hidden states are not finite nothing can be compared: nothing is kept, and the comparison will say what it finds.
    """
    kept = root / f"{head.fingerprint}-{_safe(head.architecture)}-{_safe(engine)}.json"
    try:
        HeadCheck(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        hidden_TD = hidden()
        if bool(hidden_TD.isfinite().all()):
            check = check_head(head, hidden_TD, tokens, engine_logp())
            root.mkdir(parents=True, exist_ok=True)
            write_json(kept, asdict(check))
        return False
    return True


def _safe(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in text)
