"""Common random numbers: the uniform that decides one token is the same whichever model or decoder asks for it.

Two models that sample with the same uniforms differ by their distributions and not by luck, so that far fewer prompts
show the difference. A uniform belongs to (seed, prompt, step). A token is found by the inverse of the cumulative
distribution in the order of token ids, which is the same for every model.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_WORD = 1 << 64


def uniforms(seed: int, prompt: int, steps: int) -> NDArray[np.float64]:
    """u in [0, 1) of the first `steps` steps of a prompt; more steps begin with the same ones."""
    return np.random.Generator(np.random.Philox(key=[seed % _WORD, prompt % _WORD])).random(steps)


def inverse_cdf(p_RV: torch.Tensor, u_R: NDArray[np.float64]) -> list[int]:
    """Of each row the first token whose cumulative probability exceeds u, over token ids ascending, in float64.

    `p_RV` need not sum to one exactly: u is scaled by each row's sum. A token of probability 0 is never taken.
    """
    cumulative_RV = p_RV.double().cumsum(1)
    at_R1 = (
        torch.from_numpy(np.asarray(u_R, dtype=np.float64)).to(cumulative_RV.device)[:, None] * cumulative_RV[:, -1:]
    )
    found_R = torch.searchsorted(cumulative_RV, at_R1, right=True)[:, 0]
    # u below 1 times the sum may round up to the sum: then the last token that has any probability.
    last_R = torch.searchsorted(cumulative_RV, cumulative_RV[:, -1:].contiguous())[:, 0]
    return [int(token) for token in torch.minimum(found_R, last_R)]
