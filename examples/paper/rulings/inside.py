"""Rules on what happens inside the model: attention under expansion, and the cascade of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.kinds.attribute.blocks import ErrorStep
from app.kinds.attribute.report import AttributeReport
from app.reports.charts.internals import Series, layer_curves
from examples.paper.finding import Chart, Figure, Finding, NoNumberError, decided
from examples.paper.rulings.charts import bars
from examples.paper.rulings.reports import NATS, ORIGINAL, Reports

EXPANDED: Final = (
    ("duplicated-early", "layers 4 and 5 repeated"),
    ("duplicated-middle", "layers 14 and 15 repeated"),
    ("duplicated-late", "layers 24 and 25 repeated"),
)
COMPRESSED: Final = (("rounded-inside", "four bits"), ("pruned-inside", "half zeros, Wanda"))
PER_NAT: Final = "nats of attention per nat of KL"


def attention(reports: Reports) -> Finding:
    """Divergence of attention per nat of KL: expanded models against compressed ones."""
    figures: list[Figure] = []
    ratios = {}
    for job, name in (*EXPANDED, *COMPRESSED):
        shift, kl = _shift(reports, job, name), _kl(reports, job, name)
        figures += [shift, kl]
        ratios[job] = _per_nat(shift, kl, name)
    others = [ratios[job] for job, _ in COMPRESSED]
    more = [ratios[job] for job, _ in EXPANDED if all(other.below(ratios[job]) for other in others)]
    less = [ratios[job] for job, _ in EXPANDED if all(ratios[job].below(other) for other in others)]
    most = len(EXPANDED) // 2 + 1
    outcome = decided(confirmed=len(more) >= most and not less, refuted=len(less) >= most and not more)
    sentence = (
        f"Of {len(EXPANDED)} expansions, {len(more)} are above both compressed models and {len(less)} are below both."
    )
    chart = bars("attention", "Divergence of attention per nat of KL", list(ratios.values()))
    return Finding(outcome, sentence, (*ratios.values(), *figures), (chart, _by_layer(reports)))


def _shift(reports: Reports, job: str, name: str) -> Figure:
    inside = reports.of(job, AttributeReport).internals
    if inside is None or inside.attention is None:
        raise NoNumberError(f"{name}: attention was not measured{_why(reports, job)}")
    return Figure.of(f"Jensen–Shannon divergence of attention, {name}", inside.attention.js, "nats per query", ORIGINAL)


def _kl(reports: Reports, job: str, name: str) -> Figure:
    inside = reports.of(job, AttributeReport).internals
    if inside is None or inside.alignment is None:
        raise NoNumberError(f"{name}: the KL of the same tokens was not measured{_why(reports, job)}")
    return Figure.of(f"KL, {name}", inside.alignment.total, NATS, ORIGINAL)


def _why(reports: Reports, job: str) -> str:
    inside = reports.of(job, AttributeReport).internals
    return f": {'; '.join(inside.not_measured)}" if inside and inside.not_measured else ""


def _per_nat(shift: Figure, kl: Figure, name: str) -> Figure:
    return shift.over(kl, name, PER_NAT, "the compressed models")


def _by_layer(reports: Reports) -> Chart:
    """One expansion and one compressed model over the original's layers."""
    series = []
    last = 0
    for kind, (job, name) in (("main", EXPANDED[1]), ("other", COMPRESSED[0])):
        inside = reports.of(job, AttributeReport).internals
        layers = inside.attention.layers if inside and inside.attention else ()
        points = [(float(one.reference), one.js.mean, one.js.ci) for one in layers if one.js.mean is not None]
        series.append(Series(name, tuple(points), kind))
        last = max([last, *(layer.reference for layer in layers)])
    caption = "Divergence of attention by layer of the original"
    return Chart(
        "attention-layers", caption, layer_curves(series, title=caption, unit="nats", last=last, across="layer")
    )


def cascade(reports: Reports) -> Finding:
    """What each layer makes of the error that enters it, against 1, and the last error over the fresh ones."""
    whole, steps = [], []
    for job, name in COMPRESSED:
        inside = reports.of(job, AttributeReport).internals
        if inside is None or inside.activations is None:
            raise NoNumberError(f"{name}: activations were not measured{_why(reports, job)}")
        whole.append(Figure.of(name, inside.activations.cascade, "times", "unrelated errors handed on as they are: 1"))
        steps.append(_Steps.of(name, inside.activations.steps))
    outcome = decided(
        confirmed=all(of.grow > of.count / 2 for of in steps) and all(figure.low > 1 for figure in whole),
        refuted=all(of.damp > of.count / 2 for of in steps) or all(figure.high < 1 for figure in whole),
    )
    sentence = " ".join(
        f"{of.name[0].upper()}{of.name[1:]}: {of.grow} of {of.count} layers amplify the incoming error and {of.damp} "
        f"damp it. The last error is {figure} times all fresh errors together."
        for of, figure in zip(steps, whole, strict=True)
    )
    chart = bars("cascade", "The last error over the fresh ones", whole)
    figures = [figure for of in steps for figure in of.figures]
    return Finding(outcome, sentence, (*whole, *figures), (chart, _growth(reports)))


@dataclass(frozen=True)
class _Steps:
    """What the layers into which an error comes make of it: of `count` of them `grow` and `damp` have the whole
    interval above and below 1, which one without an interval has on neither side; figures of those with the least, the
    middle and the largest amplification."""

    name: str
    count: int
    grow: int
    damp: int
    figures: tuple[Figure, ...]

    @classmethod
    def of(cls, name: str, steps: Sequence[ErrorStep]) -> _Steps:
        """Raises `NoNumberError` where no layer has an interval."""
        entered = [step for step in steps if step.amplification.mean is not None]
        grown = [
            Figure.of(f"{name}, layer {step.reference[0]}", step.amplification, "times", "handed on unchanged: 1")
            for step in entered
            if step.amplification.ci is not None
        ]
        if not grown:
            raise NoNumberError(f"{name}: no layer has an amplification with an interval")
        ordered = sorted(grown, key=lambda figure: figure.value)
        picked = dict.fromkeys((0, len(ordered) // 2, len(ordered) - 1))
        return cls(
            name,
            len(entered),
            sum(figure.low > 1 for figure in grown),
            sum(figure.high < 1 for figure in grown),
            tuple(ordered[place] for place in picked),
        )


def _growth(reports: Reports) -> Chart:
    series = []
    last = 0
    for kind, (job, name) in zip(("main", "other"), COMPRESSED, strict=True):
        inside = reports.of(job, AttributeReport).internals
        borders = inside.activations.borders if inside and inside.activations else ()
        points = [(float(b.reference), b.relative.mean, b.relative.ci) for b in borders if b.relative.mean is not None]
        series.append(Series(name, tuple(points), kind))
        last = max([last, *(border.reference for border in borders)])
    caption = "Relative error of the states from layer to layer"
    return Chart(
        "cascade-layers",
        caption,
        layer_curves(series, title=caption, unit="‖error‖ / ‖state‖", last=last, across="border"),
    )
