"""Rules on the abstract's mitigations, each against the plain method."""

from __future__ import annotations

from app.contracts.report import CompareReport
from examples.paper.finding import Figure, Finding, decided
from examples.paper.rulings.charts import bars
from examples.paper.rulings.reports import NATS, ORIGINAL, Reports


def gradient_pruning(reports: Reports) -> Finding:
    """Half zeros: gradient-aware against Wanda."""
    plain = reports.kl_at("wanda-sparsity", 0.5, "half zeros, Wanda")
    return _against(_kl(reports, "gradient-half", "half zeros, gradient-aware"), plain, "gradient")


def dynamic_scaling(reports: Reports) -> Finding:
    """Four bits: dynamic scaling against round to nearest."""
    plain = reports.kl_at("rtn-bits", 4, "four bits, round to nearest")
    return _against(_kl(reports, "dynamic-four-bits", "four bits, dynamic scaling"), plain, "dynamic")


def _kl(reports: Reports, job: str, what: str) -> Figure:
    return Figure.of(what, reports.of(job, CompareReport).divergence.kl, NATS, ORIGINAL)


def _against(treated: Figure, plain: Figure, name: str) -> Finding:
    outcome = decided(confirmed=treated.below(plain), refuted=plain.below(treated))
    sentence = f"KL {treated} nats a token ({treated.what}) against {plain} ({plain.what})."
    chart = bars(name, "KL to the original", [treated, plain])
    return Finding(outcome, sentence, (treated, plain), (chart,))
