"""What a sweep's verdict says, compared with a file beside the test."""

from app.kinds.sweep.lossless import Setting
from app.kinds.sweep.report import Limit, SweepReport
from app.models.strength import Order
from tests.support.sweep_reports import (
    course,
    five_bits,
    null_everywhere,
    null_mildest,
    stepping,
    sweep_report,
    sweep_variants,
)
from workers.diagnosis.sweep.words import sentence

SHARES = ((0.1, 0.001), (0.2, 0.002), (0.3, 9.0))
HALVES = [("2:4", 0.5, 0.2, 0.05), ("4:8", 0.5, 0.01, 0.3), ("1:4", 0.75, 0.9, 0.8)]
LAYERS = [([5], 1 / 30, 0.4, 0.4), ([10], 1 / 30, 0.01, 0.01), ([15], 1 / 30, 0.02, 0.02)]
CALM = [(0.9, None, 0.02, 0.02), (1.0, None, 0.001, 0.001), (1.1, None, 0.01, 0.01)]
UNSURE = [(0.1, 0.1, 0.05, 0.03), (0.15, 0.15, 0.5, 0.4)]


def shares(*points, **options):
    return sweep_report(course([(value, value, kl, kl) for value, kl in points], **options))


def unknown(field, *points):
    """Of a knob without an order of strength."""
    settings = [(value, None, kl, kl) for value, kl in points]
    return sweep_report(course(settings, order=Order("unknown", tuple(range(len(points))))), field=field, share=None)


def cases():
    bits = {"field": "bits", "step": {"type": "quantize.rtn", "bits": 8}, "share": "1 - b/16"}
    around = Order("around", (1, 0, 2), 1.0, ((1, 0), (1, 2)))
    harmful = course([(None, None, 0.9, 0.9), (100, None, 1.9, 1.9)], order=Order("falling", (0, 1)))
    ranks = course([(4, None, 0.001, 0.001), (3, None, 0.9, 0.9), (2, None, 1.4, 1.4)], refused=0)
    pattern = {"field": "pattern", "step": {"type": "prune.wanda", "pattern": "2:4"}}
    layers = {"field": "layers", "step": {"type": "prune.layers", "layers": [5]}}
    return sweep_variants() | {
        "null everywhere": null_everywhere(),
        "null mildest": null_mildest(),
        "null harmful": sweep_report(harmful, field="recovery_steps", share=None),
        "the weakest is refused": sweep_report(ranks, field="rank", share=None),
        "equal shares": sweep_report(course(HALVES), **pattern),
        "one share": sweep_report(course(LAYERS, order=Order("unknown", (0, 1, 2))), **layers),
        "collapse": shares(*SHARES, broken=2),
        "five points for five coefficients": sweep_report(course(five_bits()), **bits),
        "turns by another form": sweep_report(course(stepping())),
        "both sides calm": sweep_report(course(CALM, order=around), field="temperature", share=None),
        "null alone": unknown("owl_range", (None, 0.001), (100, 1.9)),
        "none mild": unknown("seed", (0, 0.9), (1, 0.9)),
        "all mild": unknown("seed", (0, 0.001), (1, 0.001)),
        "undecided weakest": sweep_report(course(UNSURE)),
        "undecided strongest": shares((0.1, 0.01), (0.2, 0.049)),
        "undecided alone": unknown("damping", (0.2, 0.049)),
    }


def places():
    """A place with each kind of interval and in each unit; a turn by a form that the points reject, or do not."""
    report = SweepReport.model_validate(sweep_variants()["knee"])
    for ci in ((0.2, 0.4), (0.4, 0.2), (0.2, None), (None, 0.4), (None, None), None):
        limit = Limit(limit=0.05, largest=Setting(value=report.points[2].value), at=0.3, ci=ci, rule="")
        yield f"interval {ci}", sentence(report.model_copy(update={"largest_mild": limit}))
    for axis in ("value", "s", "order"):
        knob = report.knob.model_copy(update={"field": "pattern", "axis": axis})
        yield f"axis {axis}", sentence(report.model_copy(update={"largest_mild": limit, "knob": knob}))
    threshold = report.threshold
    assert threshold.answer == "transition" and not threshold.unjudged
    for lack, form in ((0.06, threshold.form), (0.021, "power_law_then_exponential"), (0.021, "logistic")):
        for delta in (-3.0, 1.5):  # within 2 of the least AICc the error at left-out points decides
            other = {"transition_at": 0.333, "delta_aicc": delta}
            rivals = tuple(one.model_copy(update=other) if one.form == "logistic" else one for one in threshold.rivals)
            changed = threshold.model_copy(update={"rivals": rivals, "lack_of_fit": lack, "form": form})
            yield f"fit {lack} {form} {delta}", sentence(report.model_copy(update={"threshold": changed}))


def test_verdicts_say_what_they_said(snapshot):
    told = [(name, body["verdict"]) for name, body in cases().items()]
    snapshot("verdicts.txt", "\n\n".join(f"{name}:\n{verdict}" for name, verdict in (*told, *places())))
