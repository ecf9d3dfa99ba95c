"""Rules on single modifications: orders of methods, the cliff of bits, four bits."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

from app.kinds.sweep.report import SweepReport
from app.kinds.tasks.report import TasksReport
from examples.paper.finding import Figure, Finding, NoNumberError, decided
from examples.paper.rulings.charts import bars, log_bars, sweep_curve
from examples.paper.rulings.paired import Comparison, compared, ordered, told
from examples.paper.rulings.reports import NATS, Reports, beyond, near_lossless, times

BITS: Final = "bits per weight"
FIVE_PERCENT: Final = 0.05
STEEPER: Final = 2.0
BROKEN_PERCENT: Final = (60, 65, 70)


def half_size_order(reports: Reports) -> Finding:
    """Families in the published order, each by its best method, which its perplexity names; all four neighbours must
    stand so."""
    families = (
        (("half-eight-bits", "eight bits, round to nearest"),),
        (("half-wanda", "half zeros, Wanda"),),
        (("half-4-of-8", "4:8, Wanda"), ("half-2-of-4", "2:4, Wanda")),
        (
            ("half-layers", "half of the layers removed"),
            ("half-channels-heads", "half of the channels and heads removed"),
        ),
        (("half-lowrank", "half the parameters, SVD-LLM"),),
    )
    ratios = {method: reports.ratio(*method) for family in families for method in family}
    best = [min(family, key=lambda method: ratios[method].value) for family in families]
    comparisons = [compared(reports, milder, harsher) for milder, harsher in pairwise(best)]
    holds, reversed_ = ordered(comparisons)
    outcome = decided(confirmed=len(holds) == len(comparisons), refuted=bool(reversed_))
    chart = log_bars("half-size", "Half the size: perplexity over the original's", list(ratios.values()))
    figures = (*ratios.values(), *(one.times for one in comparisons))
    return Finding(outcome, told(holds, reversed_, len(comparisons)), figures, (chart,))


def pruning_order(reports: Reports) -> Finding:
    """SparseGPT, Wanda, magnitude at three sparsities: six comparisons of neighbours."""
    ratios: list[Figure] = []
    comparisons: list[Comparison] = []
    for percent in BROKEN_PERCENT:
        row = [(f"{name.lower()}-{percent}", f"{name} at {percent} %") for name in ("SparseGPT", "Wanda", "Magnitude")]
        ratios += [reports.ratio(*method) for method in row]
        comparisons += [compared(reports, milder, harsher) for milder, harsher in pairwise(row)]
    holds, reversed_ = ordered(comparisons)
    outcome = decided(confirmed=len(holds) == len(comparisons), refuted=bool(reversed_))
    chart = log_bars("pruning-order", "Zeros beyond 60 %: perplexity over the original's", ratios)
    figures = (*ratios, *(one.times for one in comparisons))
    return Finding(outcome, told(holds, reversed_, len(comparisons)), figures, (chart,))


def cliff(reports: Reports) -> Finding:
    """Three bits within, two bits beyond near-lossless, by GPTQ; round to nearest is shown."""
    three, two = (reports.ratio_at("gptq-bits", bits, f"GPTQ, {bits} bits") for bits in (3, 2))
    beside = [reports.ratio_at("gptq-bits", bits, f"GPTQ, {bits} bits") for bits in (8, 4)]
    shown = [reports.ratio_at("rtn-bits", bits, f"round to nearest, {bits} bits") for bits in (8, 4, 3, 2)]
    outcome = decided(confirmed=near_lossless(three) and beyond(two), refuted=beyond(three) or (near_lossless(two)))
    sentence = (
        f"GPTQ: {times(three)} at three bits, {times(two)} at two; the limit of near-lossless is 1.244. At four bits: "
        f"{times(beside[1])} by GPTQ, {times(shown[1])} by round to nearest."
    )
    charts = tuple(
        sweep_curve(f"cliff-{job}", f"{name}: perplexity over bits", reports.of(f"{job}-bits", SweepReport), BITS)
        for job, name in (("gptq", "GPTQ"), ("rtn", "Round to nearest"))
    )
    return Finding(outcome, sentence, (*beside, three, two, *shown), charts)


def steeper(reports: Reports) -> Finding:
    """The rise of ln perplexity from 3 to 2 bits against that from 4 to 3, at the ends of all intervals."""
    figures: list[Figure] = []
    said, is_, is_not = [], [], []
    for job, name in (("gptq-bits", "GPTQ"), ("rtn-bits", "round to nearest")):
        four, three, two = (reports.ratio_at(job, bits, f"{name}, {bits} bits") for bits in (4, 3, 2))
        before = _rise(four, three, f"{name}, from 4 to 3 bits")
        last = _rise(three, two, f"{name}, from 3 to 2 bits")
        figures += [before, last]
        is_.append(last.low > STEEPER * before.high and last.low > 0)
        is_not.append(last.high < STEEPER * before.low)
        said.append(f"By {name}: {before} nats per token from four to three bits, {last} from three to two.")
    chart = bars("steeper", "Rise of ln perplexity per bit", figures)
    return Finding(decided(confirmed=all(is_), refuted=any(is_not)), " ".join(said), tuple(figures), (chart,))


def four_bits(reports: Reports) -> Finding:
    """Accuracy that GPTQ at four bits loses, as a share of the original's, against 5 %."""
    (found,) = reports.of("four-bits-answers", TasksReport).tasks
    unit, guessing = f"of {found.items} items right", f"guessing, {found.chance.accuracy:g}"
    original, four = (
        Figure(what, share.mean, share.ci, unit, guessing)
        for what, share in (("the unmodified model", found.reference), ("GPTQ, 4 bits", found.candidate))
    )
    if found.chance.reference_at_chance:
        raise NoNumberError(f"The original answers no better than by guessing: {original} {unit}")
    low, high = found.difference.ci
    loss = Figure(
        "loss at four bits",
        -found.difference.mean / original.value,
        (-high / original.value, -low / original.value),
        "of the original's accuracy",
        "0.05, claimed",
    )
    outcome = decided(confirmed=loss.high < FIVE_PERCENT, refuted=loss.low > FIVE_PERCENT)
    sentence = (
        f"The original answers {original} {unit}, four bits {four}: {found.flips.harmful} are lost and "
        f"{found.flips.helpful} won. The loss is {loss} {loss.unit}; the limit is 0.05."
    )
    return Finding(outcome, sentence, (original, four, loss))


def four_bits_against_pruning(reports: Reports) -> Finding:
    """GPTQ at four bits against the better of two prunings at 70 %."""
    four = reports.ratio_at("gptq-bits", 4, "GPTQ, 4 bits")
    pruned = [
        reports.ratio_at("wanda-sparsity", 0.7, "Wanda at 0.7"),
        reports.ratio_at("sparsegpt-sparsity", 0.7, "SparseGPT at 0.7"),
    ]
    best = min(pruned, key=lambda figure: figure.value)
    outcome = decided(confirmed=four.below(best), refuted=best.below(four))
    sentence = f"Four bits: {times(four)} the perplexity; {best.what}: {times(best)}."
    chart = log_bars("four-bits", "Four bits against 70 % zeros: perplexity over the original's", [four, *pruned])
    return Finding(outcome, sentence, (four, *pruned), (chart,))


def _rise(milder: Figure, harsher: Figure, what: str) -> Figure:
    """ln of the second over the first, between the ends of both intervals at their worst: wider than a paired one."""
    ends = (math.log(harsher.low / milder.high), math.log(harsher.high / milder.low))
    return Figure(what, math.log(harsher.value / milder.value), ends, NATS, "the setting with one bit more")
