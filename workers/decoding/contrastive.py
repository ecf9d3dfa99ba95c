"""Contrastive search (Su et al. 2022, arXiv 2202.06417): among the k most probable tokens v, the largest

    (1 − α)·p(v) − α·max_j cos(h_v, h_j),

h_v the hidden state that the model has once v is at the end of the text, h_j those of every token before.

Names: R rows, D hidden size, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import normalize

from app.contracts.decoding import Contrastive
from workers.decoding.fsd import candidates, pick
from workers.decoding.model import Continuation, Model


def search(
    model: Model,
    prompts: Sequence[Sequence[int]],
    decoder: Contrastive,
    *,
    max_tokens: int,
    ends: frozenset[int],
    tick: Callable[[int], None],
) -> list[Continuation]:
    """The continuation of each prompt; `tick` gets the tokens that were taken, after each step."""
    session = model.open(prompts)
    seen = [normalize(hidden_LD.float(), dim=1) for hidden_LD in session.prompt_hidden]
    made: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    for _ in range(max_tokens):
        p_RK, ids_RK = candidates(session.step, decoder.k)
        k = p_RK.shape[1]
        step = session.next(
            [int(token) for token in ids_RK.flatten()], [row for row in range(len(live)) for _ in range(k)]
        )
        hidden_RKD = normalize(step.hidden_RD, dim=1).view(len(live), k, -1)
        taken, going = [], []
        for row, prompt in enumerate(live):
            penalty_K = (hidden_RKD[row] @ seen[prompt].T).amax(1)
            token = pick(p_RK[row], ids_RK[row], penalty_K.double().cpu().numpy(), decoder.alpha)
            place = ids_RK[row].tolist().index(token)
            seen[prompt] = torch.cat([seen[prompt], hidden_RKD[row, place : place + 1]])
            made[prompt].append(token)
            if token not in ends:
                taken.append(row * k + place)
                going.append(prompt)
        tick(len(live))
        live = going
        if not live:
            break
        session.keep(taken)
    return [Continuation(tuple(tokens), bool(tokens) and tokens[-1] in ends) for tokens in made]
