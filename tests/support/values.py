"""Token values for tests: computed from random distributions, so that every field is consistent with the others."""

import numpy as np

from workers.distributions.token_values import TokenValues


def random_values(tokens: int, *, seed: int = 0, noise: float = 0.5, vocabulary: int = 50) -> TokenValues:
    """Values of `tokens` positions of two softmaxes over random logits, the second the first plus `noise`."""
    rng = np.random.default_rng(seed)
    reference_TV = 2.0 * rng.standard_normal((tokens, vocabulary))
    candidate_TV = reference_TV + noise * rng.standard_normal((tokens, vocabulary))
    return values_of(reference_TV, candidate_TV, rng.integers(0, vocabulary, tokens))


def values_of(reference_TV: np.ndarray, candidate_TV: np.ndarray, next_T: np.ndarray) -> TokenValues:
    """The definitions, in float64 and without any care for speed."""

    def log_softmax(logits_TV: np.ndarray) -> np.ndarray:
        shifted = logits_TV - logits_TV.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    rows = np.arange(len(next_T))
    lp_TV, lq_TV = log_softmax(reference_TV), log_softmax(candidate_TV)
    p_TV, q_TV = np.exp(lp_TV), np.exp(lq_TV)
    lm_TV = np.log((p_TV + q_TV) / 2)
    order_p, order_q = np.argsort(-lp_TV, axis=1, kind="stable"), np.argsort(-lq_TV, axis=1, kind="stable")
    rank_p, rank_q = np.argsort(order_p, axis=1) + 1, np.argsort(order_q, axis=1) + 1

    def overlap(k: int) -> np.ndarray:
        return np.asarray(((rank_p <= k) & (rank_q <= k)).sum(axis=1))

    return TokenValues(
        kl=(p_TV * (lp_TV - lq_TV)).sum(axis=1),
        reverse_kl=(q_TV * (lq_TV - lp_TV)).sum(axis=1),
        js=0.5 * (p_TV * (lp_TV - lm_TV)).sum(axis=1) + 0.5 * (q_TV * (lq_TV - lm_TV)).sum(axis=1),
        tv=0.5 * np.abs(p_TV - q_TV).sum(axis=1),
        logp_reference=lp_TV[rows, next_T],
        logp_candidate=lq_TV[rows, next_T],
        entropy_reference=-(p_TV * lp_TV).sum(axis=1),
        entropy_candidate=-(q_TV * lq_TV).sum(axis=1),
        top_probability_reference=p_TV.max(axis=1),
        top1_agree=order_p[:, 0] == order_q[:, 0],
        overlap5=overlap(5),
        overlap10=overlap(10),
        rank_of_reference_top=rank_q[rows, order_p[:, 0]],
        rank_token_reference=rank_p[rows, next_T],
        rank_token_candidate=rank_q[rows, next_T],
        top_reference=order_p[:, 0],
        top_candidate=order_q[:, 0],
        finite=np.ones(len(next_T), dtype=np.bool_),
    )
