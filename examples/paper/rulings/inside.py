"""Rules on what happens inside the model: attention under expansion, and the cascade of errors."""

from __future__ import annotations

from typing import Final

from app.contracts.attribute_report import AttributeReport
from app.web.charts_internals import Series, layer_curves
from examples.paper.finding import Chart, Figure, Finding, NoNumberError, decided
from examples.paper.rulings.charts import bars
from examples.paper.rulings.reports import NATS, ORIGINAL, Reports

EXPANDED: Final = (
    ("duplicated-early", "layers 4 and 5 repeated"),
    ("duplicated-middle", "layers 14 and 15 repeated"),
    ("duplicated-late", "layers 24 and 25 repeated"),
)
COMPRESSED: Final = (("rounded-inside", "four bits"), ("pruned-inside", "half zeros, Wanda"))
PER_NAT: Final = "nats of attention a nat of KL"


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
    told = ", ".join(f"{figure.what} {figure}" for figure in ratios.values())
    sentence = (
        f"Divergence of attention a nat of KL: {told}. Of {len(EXPANDED)} expansions {len(more)} lie above both "
        f"compressed models and {len(less)} below both."
    )
    chart = bars("attention", "Divergence of attention a nat of KL", list(ratios.values()))
    return Finding(outcome, sentence, (*ratios.values(), *figures), (chart, _by_layer(reports)))


def _shift(reports: Reports, job: str, name: str) -> Figure:
    inside = reports.of(job, AttributeReport).internals
    if inside is None or inside.attention is None:
        raise NoNumberError(f"{name}: attention was not measured{_why(reports, job)}")
    return Figure.of(f"Jensen–Shannon divergence of attention, {name}", inside.attention.js, "nats a query", ORIGINAL)


def _kl(reports: Reports, job: str, name: str) -> Figure:
    inside = reports.of(job, AttributeReport).internals
    if inside is None or inside.alignment is None:
        raise NoNumberError(f"{name}: the KL of the same tokens was not measured{_why(reports, job)}")
    return Figure.of(f"KL, {name}", inside.alignment.total, NATS, ORIGINAL)


def _why(reports: Reports, job: str) -> str:
    inside = reports.of(job, AttributeReport).internals
    return f": {'; '.join(inside.not_measured)}" if inside and inside.not_measured else ""


def _per_nat(shift: Figure, kl: Figure, name: str) -> Figure:
    if kl.low <= 0:
        raise NoNumberError(f"{name}: the interval of KL reaches 0, and nothing can be divided by it")
    ends = (shift.low / kl.high, shift.high / kl.low)
    return Figure(name, shift.value / kl.value, ends, PER_NAT, "the compressed models")


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
    """Last error over the root of the fresh errors' squares, against 1."""
    figures = []
    for job, name in COMPRESSED:
        inside = reports.of(job, AttributeReport).internals
        if inside is None or inside.activations is None:
            raise NoNumberError(f"{name}: activations were not measured{_why(reports, job)}")
        figures.append(Figure.of(name, inside.activations.cascade, "times", "errors handed on unchanged: 1"))
    outcome = decided(
        confirmed=all(figure.low > 1 for figure in figures), refuted=all(figure.high < 1 for figure in figures)
    )
    told = "; ".join(f"{figure.what} {figure}" for figure in figures)
    sentence = f"The last error over what handing all fresh errors on would make: {told}."
    chart = bars("cascade", "The last error over the fresh ones", figures)
    return Finding(outcome, sentence, tuple(figures), (chart, _growth(reports)))


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
