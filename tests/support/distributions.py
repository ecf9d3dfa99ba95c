"""An independent oracle for divergences: float64, textbook formulas, whole matrices; and hidden states to try it on."""

from dataclasses import dataclass

import numpy as np
import torch

from workers.distributions.head import Head
from workers.distributions.token_values import FIELDS, TokenValues

Values = dict[str, np.ndarray]


def make_head(
    vocabulary: int,
    width: int,
    *,
    seed: int = 0,
    spread: float = 1.0,
    bias: bool = False,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Head:
    """A random head; `spread` is the standard deviation of logits for hidden states of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocabulary, width, generator=generator) * spread / width**0.5
    return Head(
        weight_VD=weight.bfloat16(),
        bias_V=torch.randn(vocabulary, generator=generator).bfloat16().float() if bias else None,
        scale=scale,
        softcap=softcap,
        fingerprint=f"{vocabulary} {width} {seed}",
        architecture="RandomForCausalLM",
    )


def hidden_states(count: int, width: int, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Unit-variance hidden states [count, width], independent of the head of the same seed."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed + 10**6)).to(dtype)


def disturbed(hidden_TD: torch.Tensor, by: float, *, seed: int = 1) -> torch.Tensor:
    """Each number moved by about `by` of the states' own size."""
    noise = torch.randn(hidden_TD.shape, generator=torch.Generator().manual_seed(seed + 2 * 10**6))
    return (hidden_TD.float() + by * noise).to(hidden_TD.dtype)


def logits64(head: Head, hidden_TD: torch.Tensor) -> torch.Tensor:
    """Logits in float64, from the definition of a head."""
    logits = hidden_TD.double() @ head.weight_VD.double().T
    if head.bias_V is not None:
        logits = logits + head.bias_V.double()
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits * head.scale


@dataclass(frozen=True)
class Case:
    """What a divergence is computed from."""

    reference: Head
    candidate: Head
    reference_TD: torch.Tensor
    candidate_TD: torch.Tensor
    next_T: torch.Tensor

    def oracle(self) -> Values:
        """Every float of `TokenValues`, by definition."""
        return oracle(
            logits64(self.reference, self.reference_TD), logits64(self.candidate, self.candidate_TD), self.next_T
        )


def case(reference: Head, candidate: Head, count: int, *, by: float, seed: int = 0) -> Case:
    """Random hidden states of the reference, the candidate's `by` off (its own, where widths differ), random tokens."""
    h = hidden_states(count, reference.hidden_size, seed=seed)
    if candidate.hidden_size == reference.hidden_size:
        k = disturbed(h, by, seed=seed + 1)
    else:
        k = hidden_states(count, candidate.hidden_size, seed=seed + 1)
    tokens = torch.randint(0, reference.vocabulary, (count,), generator=torch.Generator().manual_seed(seed + 2))
    return Case(reference, candidate, h, k, tokens)


def oracle(a: torch.Tensor, b: torch.Tensor, next_T: torch.Tensor) -> Values:
    """Every value of `TokenValues` from two float64 matrices of logits [T, V]."""
    lp, lq = a.log_softmax(1), b.log_softmax(1)
    p, q = lp.exp(), lq.exp()
    lm = torch.logaddexp(lp, lq) - float(np.log(2))
    rows = torch.arange(len(next_T))
    top_a, top_b = _first_maximum(a), _first_maximum(b)
    ten_a, ten_b = _ten_largest(a), _ten_largest(b)
    found = {
        "kl": (p * (lp - lq)).sum(1),
        "reverse_kl": (q * (lq - lp)).sum(1),
        "js": 0.5 * (p * (lp - lm) + q * (lq - lm)).sum(1),
        "tv": 0.5 * (p - q).abs().sum(1),
        "logp_reference": lp[rows, next_T],
        "logp_candidate": lq[rows, next_T],
        "entropy_reference": -(p * lp).sum(1),
        "entropy_candidate": -(q * lq).sum(1),
        "top_probability_reference": p.amax(1),
        "top1_agree": top_a == top_b,
        "overlap5": (ten_a[:, :5, None] == ten_b[:, None, :5]).sum((1, 2)),
        "overlap10": (ten_a[:, :, None] == ten_b[:, None, :]).sum((1, 2)),
        "rank_of_reference_top": 1 + (b > b[rows, top_a][:, None]).sum(1),
        "rank_token_reference": 1 + (a > a[rows, next_T][:, None]).sum(1),
        "rank_token_candidate": 1 + (b > b[rows, next_T][:, None]).sum(1),
        "top_reference": top_a,
        "top_candidate": top_b,
    }
    return {name: value.numpy() for name, value in found.items()}


def _first_maximum(logits: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.argmax(logits.numpy(), axis=1))


def _ten_largest(logits: torch.Tensor) -> torch.Tensor:
    """Ids of the ten largest, largest first, of equal ones the smaller id first."""
    order = logits.numpy()
    if order.shape[1] > 5000:  # sorting all of a large vocabulary takes longer than all else
        ids = np.sort(np.argpartition(-order, 100, axis=1)[:, :100], axis=1)
    else:
        ids = np.arange(order.shape[1])[None, :].repeat(len(order), 0)
    chosen = np.take_along_axis(order, ids, axis=1)
    best = np.argsort(-chosen, axis=1, kind="stable")[:, :10]
    return torch.as_tensor(np.take_along_axis(ids, best, axis=1))


def one_sided(logp_reference: np.ndarray) -> TokenValues:
    """What is known where the candidate has no number at all: the reference's log-probabilities, which a `Divergence`
    keeps."""
    nothing = np.full(len(logp_reference), np.nan, dtype=np.float32)
    empty = TokenValues.concat([])
    columns = {name: np.zeros(len(logp_reference), dtype=getattr(empty, name).dtype) for name in FIELDS}
    columns |= {name: nothing for name, column in columns.items() if column.dtype.kind == "f"}
    return TokenValues(**columns | {"logp_reference": logp_reference})
